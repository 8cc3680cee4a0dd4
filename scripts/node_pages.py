"""What the nodes' sources and help pages say, read without ComfyUI."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from downloads import ROOT

NODES = ROOT / "nodes"
UNUSED = "No workflow of this pack uses it."


@dataclass(frozen=True)
class NodePage:
    """A node's help page, and the names that its source gives it."""

    node_id: str
    display_name: str

    @property
    def path(self) -> Path:
        """The page's file."""
        return NODES / "web" / "docs" / f"{self.node_id}.md"

    @property
    def title(self) -> str:
        """The page's heading."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def sentence(self) -> str:
        """The first one of the page."""
        paragraph = self.text.split("\n\n")[1]
        return " ".join(paragraph.split()).partition(". ")[0].removesuffix(".")

    @property
    def shown_in_workflow(self) -> bool:
        """Whether a workflow of the pack is to use the node: the page says when none does."""
        return UNUSED not in self.text

    @property
    def english(self) -> Path:
        """Where ComfyUI looks first in English; other languages without a page of their own get that at `path`."""
        return self.path.with_suffix("") / "en.md"

    @property
    def text(self) -> str:
        """The page's content."""
        return self.path.read_text(encoding="utf-8")


def node_pages() -> list[NodePage]:
    """The registered nodes in their order."""
    return [_page(ast.parse((NODES / f"{module}.py").read_text(encoding="utf-8"))) for module in registered()]


def registered() -> list[str]:
    """NODES, the modules that nodes/__init__.py names."""
    tree = ast.parse((NODES / "__init__.py").read_text(encoding="utf-8"))
    [names] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "NODES"
    ]
    return list(names)


def _page(tree: ast.Module) -> NodePage:
    """From the call of io.Schema in a node's source."""
    [schema] = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "io.Schema"]
    given = {keyword.arg: keyword.value for keyword in schema.keywords}
    return NodePage(ast.literal_eval(given["node_id"]), ast.literal_eval(given["display_name"]))
