"""The rooms: what may import what, how long a file is, how many parameters a function takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from downloads import ROOT
from node_pages import registered

ROOMS = ("unlearning_core", "nodes", "recipes", "benchmarks", "scripts", "tests")
LINES, PARAMETERS = 400, 6
COMFYUI = {"define_schema", "execute", "fingerprint_inputs", "validate_inputs"}  # documented there

# The library from bottom to top: a module imports what stands before it, or in its own line.
LIBRARY = (
    (
        "files",
        "digests",
        "names",
        "options",
        "prompts",
        "progress",
        "registry",
        "sampling",
        "fingerprint",
        "model",
        "tiny.world",
    ),
    ("deltas", "patch"),
    ("bank", "probes", "encodings"),
    ("methods",),
    ("train", "memory", "unlearn"),
    ("metrics",),
    ("reports", "tiny", "hosts"),
    ("export",),
    ("commands", "cli"),
)


@cache
def sources() -> dict[str, Path]:
    """Every Python file of the rooms, by its dotted name."""
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


def imported(name: str) -> set[str]:
    """The modules of this repository that a module imports, wherever in it, for types alone too."""
    path = sources()[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {module for alias in node.names if (module := known(alias.name))}
        if isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level]] if node.level else []
            source = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found |= {module for alias in node.names if (module := known(f"{source}.{alias.name}"))}
    return found - {name}


def known(name: str) -> str | None:
    """The longest module of this repository that a dotted name begins with."""
    parts = name.split(".")
    candidates = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((candidate for candidate in candidates if candidate in sources()), None)


def test_no_import_circle() -> None:
    graph = {name: imported(name) for name in sources()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' <- '.join(error.args[1])}")


def floor(module: str) -> int:
    """Where a module of the library stands."""
    name = module.removeprefix("unlearning_core").strip(".")
    fits = [
        (len(room), level)
        for level, rooms in enumerate(LIBRARY)
        for room in rooms
        if name == room or name.startswith(f"{room}.")
    ]
    assert fits or not name, f"{module} has no place in LIBRARY"
    return max(fits)[1] if fits else 0


@pytest.mark.parametrize("name", [name for name in sources() if name.startswith("unlearning_core")])
def test_the_library_imports_downwards(name: str) -> None:
    outside = {module for module in imported(name) if not module.startswith("unlearning_core")}
    assert not outside, f"{name} imports {', '.join(sorted(outside))}, which are outside the library"
    above = {module for module in imported(name) if floor(module) > floor(name)}
    assert not above, f"{name} imports {', '.join(sorted(above))}, which stand above it"


@pytest.mark.parametrize("name", [name for name in sources() if name.startswith(("nodes", "recipes", "benchmarks"))])
def test_other_rooms_import_the_library_and_themselves(name: str) -> None:
    room = name.split(".")[0]
    strangers = {
        module for module in imported(name) if module.split(".")[0] not in (room, "unlearning_core", "scripts")
    }
    assert not strangers, f"{name} imports {', '.join(sorted(strangers))}"


def test_no_node_imports_another_nodes_file() -> None:
    nodes = {f"nodes.{name}" for name in registered()}
    assert all(not imported(name) & nodes for name in nodes)
    assert all(not imported(name) & nodes for name in sources() if name.startswith("nodes.host"))


@pytest.mark.parametrize("name", sources())
def test_files_are_short(name: str) -> None:
    lines = len(sources()[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LINES, f"{name} has {lines} lines; split it"


@pytest.mark.parametrize("name", sources())
def test_functions_take_few_parameters(name: str) -> None:
    crowded = [f"{function} takes {count}" for function, count in parameters(name) if count > PARAMETERS]
    assert not crowded, f"{name}: {'; '.join(crowded)}. What travels together is a dataclass"


def parameters(name: str) -> Iterator[tuple[str, int]]:
    """Every function with the number of its parameters, without self and cls."""
    for node in ast.walk(ast.parse(sources()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield node.name, len([each for each in arguments if each.arg not in ("self", "cls")])


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(name: str) -> Iterator[tuple[Definition, ast.ClassDef | None]]:
    """The public classes, functions and methods of a module, methods with their class."""
    tree = ast.parse(sources()[name].read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node, None
            methods = node.body if isinstance(node, ast.ClassDef) else []
            for method in methods:
                if isinstance(method, Definition) and not method.name.startswith("_"):
                    assert isinstance(node, ast.ClassDef)
                    yield method, node


@cache
def documented_methods() -> set[str]:
    """Names of methods that some class documents, for those that override them."""
    pairs = (pair for name in sources() if not name.startswith("tests") for pair in definitions(name))
    return {node.name for node, owner in pairs if owner and ast.get_docstring(node)} | COMFYUI


@pytest.mark.parametrize("name", [name for name in sources() if not name.startswith("tests")])
def test_public_definitions_are_documented(name: str) -> None:
    bare = [(node.name, owner) for node, owner in definitions(name) if not ast.get_docstring(node)]
    missing = [each for each, owner in bare if not (owner and owner.bases and each in documented_methods())]
    assert not missing, f"{name}: {', '.join(missing)} need a docstring: shapes, units, ranges, errors, source"
