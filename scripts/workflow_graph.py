"""A workflow's nodes and links, and the two JSON formats of them that ComfyUI reads: the canvas's and the API's."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

Value = str | int | float | bool
SEED = "seed"  # the front end puts a widget of its own after it: what becomes of the seed after a run
TITLE = 30  # pixels of a node's title, which stands above its top


class Point(NamedTuple):
    """A place on the canvas, in its pixels."""

    x: float
    y: float


class Box(NamedTuple):
    """Where a node, note or group stands on the canvas, in its pixels; a node's title comes on top of it."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """Where its right edge is."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """Where its lower edge is."""
        return self.top + self.height


@dataclass(frozen=True)
class Output:
    """The output of node `node` that comes `index`-th, from 0."""

    node: int
    index: int


@dataclass(frozen=True)
class Socket:
    """An input that takes a link; `source` None leaves it open, which only an optional one may be.

    The link goes through the points of `via`, so that it crosses no node.
    """

    name: str
    type: str
    source: Output | None
    optional: bool = False
    via: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Widget:
    """An input with a value of its own. A FLOAT may be written as a whole number."""

    name: str
    type: str
    value: Value


@dataclass(frozen=True)
class Download:
    """A model file, its address, and the folder below ComfyUI's models folder that it belongs in."""

    name: str
    url: str
    directory: str


@dataclass(frozen=True)
class Node:
    """A node: `title` as ComfyUI shows it, `outputs` as name -> type, inputs in the order of the node's schema.

    The front end offers `downloads` of files that are missing. It translates the title, unless that is `renamed`.
    """

    id: int
    type: str
    title: str
    box: Box
    inputs: tuple[Socket | Widget, ...]
    outputs: Mapping[str, str]
    downloads: tuple[Download, ...] = ()
    renamed: bool = False

    @property
    def sockets(self) -> list[Socket]:
        """Its inputs that are linked."""
        return [entry for entry in self.inputs if isinstance(entry, Socket)]

    @property
    def widgets(self) -> list[Widget]:
        """Its inputs that hold a value."""
        return [entry for entry in self.inputs if isinstance(entry, Widget)]


@dataclass(frozen=True)
class Note:
    """A note on the canvas, in Markdown."""

    id: int
    box: Box
    text: str


@dataclass(frozen=True)
class Group:
    """A coloured frame around nodes, with a title at its top."""

    title: str
    box: Box
    colour: str


@dataclass(frozen=True)
class App:
    """What ComfyUI's app mode shows of a workflow: widgets, each with a caption of its own, and pictures of nodes.

    `inputs`: (node, widget) -> caption. `outputs`: the nodes whose pictures are the result.
    """

    inputs: Mapping[tuple[int, str], str]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Link:
    """A line on the canvas, from `source` to the `slot`-th socket of node `target`."""

    id: int
    source: Output
    target: int
    slot: int
    type: str
    via: tuple[Point, ...]


@dataclass(frozen=True)
class Graph:
    """A workflow, opened as its `app` if it has one. The front end tells workflows apart by a UUID of `identity`."""

    identity: str
    nodes: tuple[Node, ...]
    note: Note
    groups: tuple[Group, ...]
    app: App | None = None

    @property
    def links(self) -> list[Link]:
        """All links, numbered from 1, by the nodes that they lead to."""
        ends = [
            (socket.source, node.id, slot, socket.type, socket.via)
            for node in self.nodes
            for slot, socket in enumerate(node.sockets)
            if socket.source is not None
        ]
        return [Link(index, *end) for index, end in enumerate(ends, start=1)]


def api_format(graph: Graph) -> dict[str, Any]:
    """The workflow as ComfyUI's /prompt takes it: node id -> class, title and inputs."""
    return {
        str(node.id): {"class_type": node.type, "_meta": {"title": node.title}, "inputs": _api_inputs(node)}
        for node in sorted(graph.nodes, key=lambda node: node.id)
    }


def _api_inputs(node: Node) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for entry in node.inputs:
        if isinstance(entry, Widget):
            inputs[entry.name] = float(entry.value) if entry.type == "FLOAT" else entry.value
        elif entry.source is not None:
            inputs[entry.name] = [str(entry.source.node), entry.source.index]
    return inputs


def ui_format(graph: Graph) -> dict[str, Any]:
    """The workflow as the front end opens and saves it."""
    links = graph.links
    captions = graph.app.inputs if graph.app else {}
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, graph.identity)),
        "revision": 0,
        "last_node_id": max(*(node.id for node in graph.nodes), graph.note.id),
        "last_link_id": len(links),
        "nodes": [
            *(_ui_node(node, order, links, captions) for order, node in enumerate(graph.nodes)),
            _ui_note(graph.note, len(graph.nodes)),
        ],
        "links": [[link.id, link.source.node, link.source.index, link.target, link.slot, link.type] for link in links],
        "groups": [_ui_group(index, group) for index, group in enumerate(graph.groups, start=1)],
        "config": {},
        "extra": {"ds": {"scale": 0.6, "offset": [140, 195]}, **_reroutes(links), **_linear(graph.app)},
        "version": 0.4,
    }


def _reroutes(links: list[Link]) -> dict[str, Any]:
    """The points that links go through: each knows the one before it, and a link the last one."""
    reroutes: list[dict[str, Any]] = []
    ends = []
    for link in (link for link in links if link.via):
        for index, point in enumerate(link.via):
            parent = {"parentId": len(reroutes)} if index else {}
            reroutes.append({"id": len(reroutes) + 1, **parent, "pos": list(point), "linkIds": [link.id]})
        ends.append({"id": link.id, "parentId": len(reroutes)})
    return {"reroutes": reroutes, "linkExtensions": ends} if reroutes else {}


def _linear(app: App | None) -> dict[str, Any]:
    """What app mode reads, which the front end's code calls linear."""
    if app is None:
        return {}
    return {"linearData": {"inputs": [list(place) for place in app.inputs], "outputs": app.outputs}, "linearMode": True}


def _ui_group(number: int, group: Group) -> dict[str, Any]:
    return {
        "id": number,
        "title": group.title,
        "bounding": list(group.box),
        "color": group.colour,
        "font_size": 24,
        "flags": {},
    }


def _ui_node(node: Node, order: int, links: list[Link], captions: Mapping[tuple[int, str], str]) -> dict[str, Any]:
    into = {link.slot: link.id for link in links if link.target == node.id}
    sockets = [_ui_socket(socket, into.get(slot)) for slot, socket in enumerate(node.sockets)]
    outputs = [
        _named(name)
        | {"type": kind, "links": [link.id for link in links if link.source == Output(node.id, index)] or None}
        for index, (name, kind) in enumerate(node.outputs.items())
    ]
    models = {"models": [asdict(download) for download in node.downloads]} if node.downloads else {}
    return {
        "id": node.id,
        "type": node.type,
        "pos": [node.box.left, node.box.top],
        "size": [node.box.width, node.box.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [*sockets, *(_ui_widget(widget, captions.get((node.id, widget.name))) for widget in node.widgets)],
        "outputs": outputs,
        **({"title": node.title} if node.renamed else {}),
        "properties": {"Node name for S&R": node.type, **models},
        "widgets_values": _widget_values(node.widgets),
    }


def _named(name: str) -> dict[str, Any]:
    return {"localized_name": name, "name": name}


def _ui_socket(socket: Socket, link: int | None) -> dict[str, Any]:
    shape = {"shape": 7} if socket.optional else {}
    return _named(socket.name) | shape | {"type": socket.type, "link": link}


def _ui_widget(widget: Widget, caption: str | None) -> dict[str, Any]:
    label = {"label": caption} if caption else {}
    return _named(widget.name) | label | {"type": widget.type, "widget": {"name": widget.name}, "link": None}


def _widget_values(widgets: list[Widget]) -> list[Value]:
    values: list[Value] = []
    for widget in widgets:
        values += [widget.value, "fixed"] if widget.name == SEED else [widget.value]
    return values


def _ui_note(note: Note, order: int) -> dict[str, Any]:
    return {
        "id": note.id,
        "type": "MarkdownNote",
        "pos": [note.box.left, note.box.top],
        "size": [note.box.width, note.box.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "Read me",
        "properties": {},
        "widgets_values": [note.text],
        "color": "#432",
        "bgcolor": "#653",
    }
