"""requirements.txt and pyproject.toml name what is imported, and agree.

requirements.txt is what the nodes import and ComfyUI does not bring; it is all that a user of ComfyUI installs.
pyproject.toml's dependencies are what the library imports, the command line and its hosts too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from downloads import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DISTRIBUTIONS = {"PIL": "pillow", "open_clip": "open-clip-torch"}  # of imports that go by another name
# What others import only when they are asked for what we ask of them.
BEHIND = {"diffusers": "transformers", "torchmetrics": "torch-fidelity"}  # its text encoders; its FID
NODES = [
    ROOT / "__init__.py",
    *(ROOT / "nodes").rglob("*.py"),
    *(ROOT / "unlearning_core" / "methods").glob("*.py"),  # the registry imports them by name
]
LIBRARY = [*(ROOT / "unlearning_core").rglob("*.py")]


def parsed(lines: Iterable[str]) -> dict[str, Requirement]:
    """Requirements by the name of their distribution; comments and blank lines are left out."""
    stated = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    return {canonicalize_name(requirement.name): requirement for requirement in stated}


def requirements(folder: Path) -> dict[str, Requirement]:
    return parsed((folder / "requirements.txt").read_text(encoding="utf-8").splitlines())


def dependencies() -> dict[str, Requirement]:
    return parsed(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])


def extras() -> set[str]:
    """What users install on top when they want what it does."""
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return {*parsed(optional["nudenet"])}


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import below a node, in functions too, but those for types alone."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from imports(child)


def own_files(path: Path, statement: ast.ImportFrom) -> Iterator[Path]:
    """The files that a relative import in `path` may read."""
    package = path.parents[statement.level - 1].joinpath(*filter(None, (statement.module or "").split(".")))
    for module in (package, *(package / alias.name for alias in statement.names)):
        yield from filter(Path.is_file, (module.with_suffix(".py"), module / "__init__.py"))


def imported(files: Iterable[Path]) -> set[str]:
    """The distributions that `files` need at run time, with what they import of this pack."""
    names: set[str] = set()
    waiting, seen = [*files], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for statement in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in statement.names}
            elif statement.level:
                waiting += own_files(path, statement)
            else:
                names.add(str(statement.module).partition(".")[0])
    found = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names - sys.stdlib_module_names}
    return found | {behind for name, behind in BEHIND.items() if name in found}


def of_comfyui(folder: Path) -> set[str]:
    """The names of ComfyUI's own packages and modules."""
    return {canonicalize_name(path.stem) for path in folder.iterdir() if path.is_dir() or path.suffix == ".py"}


def test_requirements_are_what_the_nodes_import_and_comfyui_lacks(comfyui_path: Path) -> None:
    lacking = imported(NODES) - of_comfyui(comfyui_path) - requirements(comfyui_path).keys() - extras()
    assert lacking == {*requirements(ROOT)}


def test_dependencies_are_what_the_library_imports() -> None:
    assert imported(LIBRARY) - extras() == {*dependencies()}


def test_bounds_are_the_same_in_both() -> None:
    stated = dependencies()
    for name, requirement in requirements(ROOT).items():
        assert requirement.specifier == stated[name].specifier, name


def test_every_dependency_has_a_lower_bound() -> None:
    for requirement in dependencies().values():
        assert re.match(r">=\d", str(requirement.specifier)), requirement


def test_imports_are_found_wherever_they_are(tmp_path: Path) -> None:
    """In functions and through relative imports; not those of the standard library, nor those for types alone."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.py").write_text("import json\nfrom .inner import b\nif TYPE_CHECKING:\n    import types_only\n")
    (tmp_path / "inner" / "b.py").write_text("def late():\n    from PIL import Image\n    from ..c import x\n")
    (tmp_path / "c.py").write_text("import torchmetrics.image\nfrom . import a\n")
    assert imported([tmp_path / "a.py"]) == {"pillow", "torchmetrics", "torch-fidelity"}
