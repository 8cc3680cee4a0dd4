"""The rooms: what may import what, how long a file is, how many parameters a function takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from downloads import ROOT
from node_pages import node_pages, registered

from unlearning_core.attacks import ATTACKS
from unlearning_core.methods import METHODS

ROOMS = ("unlearning_core", "nodes", "recipes", "benchmarks", "scripts", "tests")
LINES, PARAMETERS = 400, 6
SHARED = {"__init__", "inputs", "measuring", "sockets"}  # of nodes/, beside one file a node
BARE = ("scripts.", "tests.support.")  # on sys.path where they are used
REGISTERED = {  # registries import what they name
    "nodes": [f"nodes.{name}" for name in registered()],
    "unlearning_core.methods": [f"unlearning_core.methods.{name}" for name in METHODS],
    "unlearning_core.attacks": [f"unlearning_core.attacks.{name}" for name in ATTACKS],
}
COMFYUI = {"define_schema", "execute", "fingerprint_inputs", "validate_inputs"}  # documented there

# The library from bottom to top: a module imports what stands before it, or in its own line.
LIBRARY = (
    (
        "files",
        "digests",
        "names",
        "nested",
        "recomputed",
        "options",
        "prompts",
        "words",
        "vocabulary",
        "progress",
        "processes",
        "registry",
        "typed",
        "sampling",
        "fingerprint",
        "model",
        "settings",
        "tiny.world",
    ),
    ("deltas", "changes", "patch"),
    (
        "latents",
        "bank",
        "probes",
        "encodings",
        "kept",
        "reads",
        "selections",
        "texts",
        "protection",
        "wordings",
        "measured",
    ),
    ("freetext", "adversaries", "relearner"),
    ("methods",),
    ("train", "memory", "recipe", "presets", "solve", "unlearn"),
    ("metrics",),
    ("attacks",),
    ("reports", "tiny", "hosts"),
    ("export", "launched"),
    ("commands", "cli"),
)


@cache
def sources() -> dict[str, Path]:
    """Every Python file of the rooms, by its dotted name."""
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


@cache
def tree(name: str) -> ast.Module:
    """A module's source, parsed."""
    return ast.parse(sources()[name].read_text(encoding="utf-8"))


def imported(name: str) -> set[str]:
    """The modules of this repository that a module imports, wherever in it, for types alone too."""
    found = {module for written in written_imports(name) if (module := known(written))}
    return (found | set(REGISTERED.get(name, []))) - {name}


def written_imports(name: str) -> Iterator[str]:
    """What a module imports, as dotted names from the repository's root; modules first, then what comes from them."""
    path = sources()[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *filter(None, (node.module or "").split("."))])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def known(name: str) -> str | None:
    """The longest module of this repository that a dotted name begins with."""
    parts = name.split(".")
    candidates = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    places = [f"{place}{candidate}" for candidate in candidates for place in ("", *BARE)]
    return next((place for place in places if place in sources()), None)


def test_relative_imports_lead_somewhere() -> None:
    for name, path in sources().items():
        package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ImportFrom) and node.level:
                above = 1 if name.startswith("nodes") else 0  # the pack, whose name ComfyUI gives
                assert node.level <= len(package) + above, f"{name}:{node.lineno} leaves its package"
                source = ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])
                assert source in sources(), f"{name}:{node.lineno} imports from {source}, which is not there"


def test_modules_are_imported_by_name_in_registries_alone() -> None:
    users = {
        name
        for name in sources()
        if not name.startswith(("tests", "benchmarks"))
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).split(".")[-1] == "import_module"
    }
    assert users == REGISTERED.keys()


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
    allowed = {room, "unlearning_core"} | ({"scripts", "recipes"} if room == "benchmarks" else set())
    strangers = {module for module in imported(name) if module.split(".")[0] not in allowed}
    assert not strangers, f"{name} imports {', '.join(sorted(strangers))}"


@pytest.mark.parametrize("name", [name for name in sources() if not name.startswith(("nodes", "tests", "benchmarks"))])
def test_comfyui_is_imported_by_nodes_alone(name: str) -> None:
    tops = {written.split(".")[0] for written in written_imports(name)}
    assert not tops & {"comfy", "comfy_api", "comfy_extras", "folder_paths", "nodes", "server"}


HOST = {name for name in sources() if name.startswith("nodes.host")}


def test_no_node_imports_another_nodes_file() -> None:
    nodes = {f"nodes.{name}" for name in registered()}
    assert all(not imported(name) & nodes for name in nodes)
    for name in sources():
        if name.startswith("nodes.host"):
            above = {module for module in imported(name) if module.startswith("nodes")} - HOST
            assert not above, f"{name} imports {', '.join(sorted(above))}"


def test_every_node_file_is_registered() -> None:
    files = {path.stem for path in (ROOT / "nodes").glob("*.py")}
    assert files - SHARED == set(registered())
    pages = {path.stem for path in (ROOT / "nodes" / "web" / "docs").glob("*.md")}
    assert pages == {page.node_id for page in node_pages()}


@pytest.mark.parametrize("name", sources())
def test_files_are_short(name: str) -> None:
    lines = len(sources()[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LINES, f"{name} has {lines} lines; split it"


@pytest.mark.parametrize("name", sources())
def test_functions_take_few_parameters(name: str) -> None:
    crowded = [f"{function} takes {count}" for function, count in parameters(name) if count > PARAMETERS]
    assert not crowded, f"{name}: {'; '.join(crowded)}. What travels together is a dataclass"


def parameters(name: str) -> Iterator[tuple[str, int]]:
    """Every function and lambda with the number of its parameters, without a method's self or cls."""
    methods = {id(item) for node in ast.walk(tree(name)) if isinstance(node, ast.ClassDef) for item in node.body}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            given = node.args
            count = len(
                [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
            )
            first = [*given.posonlyargs, *given.args][:1]
            bound = id(node) in methods and [each.arg for each in first] in (["self"], ["cls"])
            yield getattr(node, "name", "a lambda"), count - bound


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(name: str) -> Iterator[tuple[Definition, ast.ClassDef | None]]:
    """The public classes, functions and methods of a module, methods with their class."""
    for node in tree(name).body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node, None
            methods = node.body if isinstance(node, ast.ClassDef) else []
            for method in methods:
                if isinstance(method, Definition) and not method.name.startswith("_"):
                    assert isinstance(node, ast.ClassDef)
                    yield method, node


@cache
def classes() -> dict[str, list[ast.ClassDef]]:
    """The classes of the rooms by their name."""
    found: dict[str, list[ast.ClassDef]] = {}
    for name in sources():
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def documents(owner: ast.ClassDef, method: str) -> bool:
    """Whether a class, or one that it inherits from, documents a method."""
    own = [node for node in owner.body if isinstance(node, Definition) and node.name == method]
    if any(ast.get_docstring(node) for node in own):
        return True
    bases = [ast.unparse(base).split("[")[0].split(".")[-1] for base in owner.bases]
    if "ComfyNode" in bases and method in COMFYUI:
        return True
    return any(documents(base, method) for name in bases for base in classes().get(name, []) if base is not owner)


@pytest.mark.parametrize("name", [name for name in sources() if not name.startswith("tests")])
def test_public_definitions_are_documented(name: str) -> None:
    bare = [(node.name, owner) for node, owner in definitions(name) if not ast.get_docstring(node)]
    missing = [each for each, owner in bare if not (owner and documents(owner, each))]
    assert not missing, f"{name}: {', '.join(missing)} need a docstring: shapes, units, ranges, errors, source"
