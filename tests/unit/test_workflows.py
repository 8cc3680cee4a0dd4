"""The files of the model families are the ones that `python scripts/workflows.py` writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from downloads import ROOT
from family_graphs import BLOCK, README, WORKFLOWS, generated_texts, graph, with_families
from family_workflows import FAMILIES, Family
from workflow_thumbnails import alike, thumbnail

TEXTS = generated_texts()
SD15 = FAMILIES[0]
START, END = BLOCK.start, BLOCK.end
OTHERS = {"quickstart", "compare", "forgetting"}  # made in ComfyUI
ADVICE = "is not what is written for its family: run `python scripts/workflows.py`"


def named(item: Family | Path) -> str:
    return item.name if isinstance(item, Family) else item.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", TEXTS, ids=named)
def test_text_is_the_generated_one(path: Path) -> None:
    assert path.exists(), f"{path} {ADVICE}"
    assert path.read_text(encoding="utf-8") == TEXTS[path], f"{path} {ADVICE}"


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_thumbnail_is_the_generated_one(family: Family) -> None:
    path = WORKFLOWS / f"{family.name}.jpg"
    assert path.exists(), f"{path} {ADVICE}"
    assert alike(path.read_bytes(), thumbnail(family.label, graph(family))), f"{path} {ADVICE}"


@pytest.mark.parametrize("pattern", ["*.json", "*.jpg", "api/*.json"])
def test_every_workflow_has_all_its_files(pattern: str) -> None:
    names = [family.name for family in FAMILIES]
    assert {path.stem for path in WORKFLOWS.glob(pattern)} == OTHERS | set(names)
    assert len(names) == len({*names} - OTHERS)


def test_workflows_are_told_apart() -> None:
    identities = {json.loads(path.read_text(encoding="utf-8"))["id"] for path in WORKFLOWS.glob("*.json")}
    assert len(identities) == len(FAMILIES) + len(OTHERS)


@pytest.mark.parametrize(
    "changed", [replace(SD15, label="Stable Diffusion 1.6"), replace(SD15, training=replace(SD15.training, rank=8))]
)
def test_outdated_thumbnail_is_noticed(changed: Family) -> None:
    stored = (WORKFLOWS / "sd15.jpg").read_bytes()
    assert not alike(stored, thumbnail(changed.label, graph(changed)))


def test_command_writes_everything_from_nothing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    before, _, rest = README.read_text(encoding="utf-8").partition(START)
    (tmp_path / "README.md").write_text(f"{before}{START}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    (tmp_path / "workflows" / "api").mkdir(parents=True)
    command = [sys.executable, str(tmp_path / "scripts" / "workflows.py")]

    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))

    for path, text in TEXTS.items():
        assert (tmp_path / path.relative_to(ROOT)).read_text(encoding="utf-8") == text
    assert {path.stem for path in tmp_path.glob("workflows/*.jpg")} == {family.name for family in FAMILIES}
    assert first.endswith(f"{len(FAMILIES)} families, {3 * len(FAMILIES) + 1} files written\n")
    assert second == f"{len(FAMILIES)} families, 0 files written\n"


def test_readme_keeps_what_is_around_the_families() -> None:
    rows = with_families(f"before\n\n{START}\nold\n{END}\nafter\n", [SD15])
    assert rows.startswith(f"before\n\n{START}\n| workflow |")
    assert rows.endswith(f"[api/sd15.json](workflows/api/sd15.json) |\n{END}\nafter\n")
    assert with_families(rows, [SD15]) == rows


@pytest.mark.parametrize("readme", ["no block", START, END, f"{END}\n{START}"])
def test_readme_without_block_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match=r"README\.md needs the lines"):
        with_families(readme, FAMILIES)
