"""The workflows' files are the ones that `python scripts/workflows.py` writes, and can be read when they open."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote

import pytest
from downloads import ROOT
from family_graphs import graph
from family_workflows import FAMILIES, Family
from layout import HEIGHT, WIDTH, arranged, columns, crosses, link_parts, lowered, with_title
from PIL import Image, ImageColor
from workflow_files import (
    FAMILY_WORKFLOWS,
    README,
    TABLES,
    TINY_WORKFLOWS,
    Workflow,
    generated_texts,
    with_tables,
)
from workflow_graph import Box, Node, Note, Output, Socket, api_format, ui_format
from workflow_thumbnails import SIZE, alike, comparison, thumbnail

TEXTS = generated_texts()
SD15, SD15_FILES = FAMILIES[0], FAMILY_WORKFLOWS[0]
ALL = (*TINY_WORKFLOWS, *FAMILY_WORKFLOWS)
OWN = [workflow for workflow in ALL if not workflow.twin]  # with an API file of their own
BLOCKS = [block for block, _, _ in TABLES]
ADVICE = "is not what is written for it: run `python scripts/workflows.py`"


def named(item: Workflow | Path) -> str:
    return item.name if isinstance(item, Workflow) else item.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_text_is_the_generated_one(path: Path) -> None:
    assert path.exists(), f"{path} {ADVICE}"
    assert path.read_text(encoding="utf-8") == TEXTS[path], f"{path} {ADVICE}"


@pytest.mark.parametrize("workflow", FAMILY_WORKFLOWS, ids=named)
def test_thumbnail_is_the_generated_one(workflow: Workflow) -> None:
    path = workflow.thumbnail
    assert path.exists(), f"{path} {ADVICE}"
    assert alike(path.read_bytes(), thumbnail(workflow.label, workflow.graph)), f"{path} {ADVICE}"


@pytest.mark.parametrize("workflow", TINY_WORKFLOWS, ids=named)
def test_thumbnail_with_pictures_has_the_size_of_the_others(workflow: Workflow) -> None:
    with Image.open(workflow.thumbnail) as picture:
        assert (picture.format, picture.size) == ("JPEG", (SIZE, SIZE))


def test_every_workflow_has_all_its_files_and_no_other_is_there() -> None:
    for pattern in ("file", "thumbnail", "api_file"):
        expected = {getattr(workflow, pattern) for workflow in ALL}
        folder, suffix = next(iter(expected)).parent, next(iter(expected)).suffix
        assert set(folder.glob(f"*{suffix}")) == expected
        assert len(expected) == len(OWN if pattern == "api_file" else ALL)


def test_a_twin_differs_for_the_front_end_alone() -> None:
    named = {workflow.name: workflow for workflow in OWN}
    for workflow in (workflow for workflow in ALL if workflow.twin):
        assert api_format(workflow.graph) == api_format(named[workflow.twin].graph)
        assert ui_format(workflow.graph) != ui_format(named[workflow.twin].graph)


def test_titles_sort_and_say_what_they_are_for() -> None:
    titles = [workflow.title for workflow in ALL]
    assert titles == sorted(titles)
    assert all(re.search("forget|unlearn", title, re.IGNORECASE) for title in titles)
    assert all("no download" in workflow.title for workflow in TINY_WORKFLOWS)


def test_workflows_are_told_apart() -> None:
    assert len({workflow.graph.identity for workflow in ALL}) == len(ALL)


def boxes(workflow: Workflow) -> dict[int, Box]:
    nodes, note = workflow.graph.nodes, workflow.graph.note
    return {**{node.id: with_title(node.box) for node in nodes}, note.id: with_title(note.box)}


@pytest.mark.parametrize("workflow", ALL, ids=named)
def test_nodes_stand_apart_in_what_a_window_shows(workflow: Workflow) -> None:
    places = list(boxes(workflow).values())
    assert max(box.right for box in places) - min(box.left for box in places) <= WIDTH
    assert max(box.bottom for box in places) - min(box.top for box in places) <= HEIGHT
    for one, other in combinations(places, 2):
        apart = one.right <= other.left or other.right <= one.left or one.bottom <= other.top or other.bottom <= one.top
        assert apart, f"{one} and {other} overlap"


@pytest.mark.parametrize("workflow", ALL, ids=named)
def test_links_cross_no_node_and_never_lead_back(workflow: Workflow) -> None:
    places = boxes(workflow)
    for start, end, joined in link_parts(workflow.graph):
        assert start.x <= end.x  # straight up or down between two columns too
        crossed = [id_ for id_, box in places.items() if id_ not in joined and crosses(start, end, box)]
        assert not crossed, f"a link between {joined} crosses {crossed}"


@pytest.mark.parametrize("workflow", ALL, ids=named)
def test_every_node_stands_in_a_group(workflow: Workflow) -> None:
    for box in boxes(workflow).values():
        assert any(
            group.box.left < box.left and box.right < group.box.right and group.box.top < box.top
            for group in workflow.graph.groups
        )


@pytest.mark.parametrize("workflow", ALL, ids=named)
def test_note_says_what_to_look_at_how_long_it_takes_and_what_to_change(workflow: Workflow) -> None:
    text = workflow.graph.note.text
    assert text.startswith("# ")
    assert all(f"## {title}\n" in text for title in ("Look at", "How long", "Change first"))


def test_too_many_links_around_nodes_are_refused() -> None:
    first, between, last = columns(100, 100, 100)
    source = Node(1, "A", "A", first, (), {})
    wall = Node(2, "B", "B", between, (), {})
    target = Node(3, "C", "C", last, tuple(Socket(str(slot), "X", Output(1, 0)) for slot in range(6)), {})
    with pytest.raises(ValueError, match="C: more than 5 links"):
        arranged("x", (source, wall, target), Note(4, Box(0, 2000, 10, 10), ""), ())
    assert arranged("x", (source, replace(wall, box=lowered(between)), target), Note(4, Box(0, 2000, 9, 9), ""), ())


def test_columns_that_are_too_wide_are_refused() -> None:
    with pytest.raises(ValueError, match="1801 pixels wide together; 1780 can be read"):
        columns(1000, 761)


@pytest.mark.parametrize(
    "changed", [replace(SD15, label="Stable Diffusion 1.6"), replace(SD15, training=replace(SD15.training, rank=8))]
)
def test_outdated_thumbnail_is_noticed(changed: Family) -> None:
    stored = SD15_FILES.thumbnail.read_bytes()
    assert not alike(stored, thumbnail(changed.label, graph(changed)))


def test_a_comparison_shows_each_models_pictures() -> None:
    red, blue, green = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green"))
    page = Image.open(io.BytesIO(comparison("Forget", {"before": [red, green], "after": [blue, green]})))
    seen = [page.getpixel((x, y)) for y in (300, 600) for x in (SIZE // 2 - 150, SIZE // 2 + 150)]
    for pixel, colour in zip(seen, ("red", "blue", "green", "green"), strict=True):
        assert isinstance(pixel, tuple)
        assert max(abs(a - b) for a, b in zip(pixel, ImageColor.getrgb(colour), strict=True)) < 8


def emptied(readme: str) -> str:
    """README.md's text without the tables."""
    for block in BLOCKS:
        readme = block.fill(readme, [], README.name)
    return readme


def test_command_writes_everything_from_nothing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "README.md").write_text(emptied(README.read_text(encoding="utf-8")), encoding="utf-8")
    (tmp_path / "workflows" / "api").mkdir(parents=True)
    command = [sys.executable, str(tmp_path / "scripts" / "workflows.py")]

    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))

    for path, text in TEXTS.items():
        assert (tmp_path / path.relative_to(ROOT)).read_text(encoding="utf-8") == text
    written = {path.name for path in tmp_path.glob("workflows/*.jpg")}
    assert written == {workflow.thumbnail.name for workflow in ALL}
    count = 2 * len(ALL) + len(OWN) + 1
    assert first.endswith(f"{len(ALL)} workflows, {count} files written\n")
    assert second == f"{len(ALL)} workflows, 0 files written\n"


def test_readme_keeps_what_is_around_the_tables() -> None:
    around = "\n".join(line for block in BLOCKS for line in ("before", block.start, "old", block.end, "after"))
    written = with_tables(around)
    assert written.startswith(f"before\n{BLOCKS[0].start}\n| workflow |")
    assert written.endswith(f"{BLOCKS[1].end}\nafter")
    assert "old" not in written
    assert with_tables(written) == written


def test_links_of_the_readme_lead_to_the_files() -> None:
    readme = README.read_text(encoding="utf-8")
    targets = {unquote(target) for target in re.findall(r"\]\((workflows/[^)]+)\)", readme)}
    assert targets == {path.relative_to(ROOT).as_posix() for each in ALL for path in (each.file, each.api_file)}


@pytest.mark.parametrize("readme", ["no block", BLOCKS[0].start, BLOCKS[0].end, f"{BLOCKS[0].end}\n{BLOCKS[0].start}"])
def test_readme_without_block_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match=r"README\.md needs the lines"):
        with_tables(readme)
