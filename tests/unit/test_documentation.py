"""The documentation says what the code says, and nothing that it is made from is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import Block
from documentation import COMMAND, PARTS, generated_texts
from downloads import ROOT
from node_pages import NODES, NodePage, node_pages, registered

from unlearning_core import attacks
from unlearning_core.attacks import ATTACKS
from unlearning_core.methods import METHODS, NAMES, GradientMethod
from unlearning_core.methods.esd import Esd
from unlearning_core.metrics.figure import FIGURES

SHARED = {"__init__", "base", "groups"}  # in the methods' folder
TOLD = ("label", "summary", "equation", "source", "weights")


def named(item: Path | NodePage) -> str:
    return item.node_id if isinstance(item, NodePage) else f"{item.parent.name}/{item.name}"


@pytest.fixture(scope="module")
def texts() -> dict[Path, str]:
    return generated_texts()


@pytest.mark.parametrize("path", generated_texts(), ids=named)
def test_text_is_the_generated_one(texts: dict[Path, str], path: Path) -> None:
    assert path.read_text(encoding="utf-8") == texts[path], f"{path} is outdated: run `python {COMMAND}`"


@pytest.mark.parametrize("told", ["summary", "equation"])
def test_changed_class_changes_the_documentation(
    texts: dict[Path, str], monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setattr(Esd, told, "nothing")
    changed = {path.name for path, text in generated_texts().items() if text != texts[path]}
    help_page = {"UnlearnConcept.md", "en.md", "zh.md"}
    assert changed == {"summary": {"README.md", *help_page, "methods.md"}, "equation": {"methods.md"}}[told]


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, parts in PARTS.items() for name in parts])
def test_edit_by_hand_is_undone(texts: dict[Path, str], path: Path, name: str) -> None:
    block, written = Block(name, COMMAND), texts[path]
    edited = block.fill(written, ["by hand"], path.name)
    assert edited != written
    assert block.fill(edited, PARTS[path][name](), path.name) == written


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("told", TOLD)
def test_every_method_tells_of_itself(method: str, told: str) -> None:
    text = vars(METHODS[method]).get(told)
    assert isinstance(text, str) and text.strip(), f"{METHODS[method].__name__} needs a {told}: see methods/base.py"


@pytest.mark.parametrize("method", METHODS)
def test_summary_is_a_short_line(method: str) -> None:
    """It follows "Under the forget prompt: " and gets a full stop."""
    summary = METHODS[method].summary
    assert len(summary) < 90
    assert "\n" not in summary and not summary.endswith(".")


@pytest.mark.parametrize("method", METHODS)
def test_equation_has_l_help_where_it_is_on(method: str) -> None:
    default = METHODS[method]()
    on = isinstance(default, GradientMethod) and default.help_weight > 0
    assert ("L_help" in default.equation) == on


def test_every_method_file_is_registered() -> None:
    files = {path.stem for path in (ROOT / "unlearning_core" / "methods").glob("*.py")}
    assert files - SHARED == {*NAMES}, "NAMES in methods/__init__.py lists the files"


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("told", ["label", "summary", "source", "reading"])
def test_every_attack_tells_of_itself(attack: str, told: str) -> None:
    text = vars(ATTACKS[attack]).get(told)
    assert isinstance(text, str) and text.strip() and not text.endswith("."), f"{attack} needs a {told}"


def test_every_attack_file_is_registered() -> None:
    files = {path.stem for path in (ROOT / "unlearning_core" / "attacks").glob("*.py")}
    assert files - {"__init__", "base", "examine", "fitting"} == {*attacks.NAMES}


def test_every_node_has_a_help_page() -> None:
    pages = node_pages()
    assert len(pages) == len(registered())
    assert {page.path for page in pages} == {*(NODES / "web" / "docs").glob("*.md")}


@pytest.mark.parametrize("page", node_pages(), ids=named)
def test_help_page_has_the_nodes_name(page: NodePage) -> None:
    assert page.title == page.display_name
    assert page.sentence


def test_command_runs_in_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / COMMAND), "--help"]
    assert COMMAND in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout


def test_every_figure_is_explained() -> None:
    assert all(figure.meaning or figure.about for figure in FIGURES)
    assert len({figure.key for figure in FIGURES}) == len(FIGURES)


def test_the_library_example_of_the_readme_runs(tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    short = code.replace("steps=80", "steps=1, runs=1, run_steps=2, batch_size=1")
    assert short != code
    (tmp_path / "unlearning_core").symlink_to(ROOT / "unlearning_core")
    subprocess.run([sys.executable, "-c", short], cwd=tmp_path, check=True)
    assert (tmp_path / "forget-cat.safetensors").is_file()
