"""Where a workflow's nodes stand: in columns, wide rather than tall, with links that cross no node.

ComfyUI fits a workflow to three quarters of the window when it opens it from the template browser, and nodes have text
above a scale of 0.57. WIDTH and HEIGHT are what a window of 1440 x 900 shows at a scale of 0.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from workflow_graph import TITLE, Box, Graph, Group, Node, Note, Output, Point, Socket

WIDTH, HEIGHT = 1780, 1100
LONG = 300  # of a link that goes up or down
GAP = 40  # between columns, and between nodes of a column
FULL = HEIGHT - TITLE - 10  # the height of a node that fills a column
LOW = 180  # where columns begin that links pass on their way to a later one
LANES = [LOW - TITLE - 12 * index for index in range(1, 6)]  # where these links pass
MARGIN, HEAD = 16, 76  # of a group, around its nodes and above their top
COLOURS = ("#3f789e", "#8a4a3c", "#3c7a63", "#8f7226", "#6a5488")  # of groups, from left to right
SLOT, FIRST_SLOT = 20, 14  # from slot to slot of a node, and from its top to the first one
LETTER, LINE, SPACE, INDENT = 5.2, 13, 16, 60  # of a note: its letters' width, its lines' height, between paragraphs
HEADING = 24  # pixels that one is higher than a line of text


def columns(*widths: int) -> list[Box]:
    """Columns of these widths, from left to right. Raises ValueError when they are too wide to be read together."""
    total = sum(widths) + GAP * (len(widths) - 1)
    if total > WIDTH:
        raise ValueError(f"columns: {total} pixels wide together; {WIDTH} can be read")
    lefts = accumulate(widths[:-1], lambda left, width: left + width + GAP, initial=0)
    return [Box(left, 0, width, FULL) for left, width in zip(lefts, widths, strict=True)]


def lowered(column: Box) -> Box:
    """The column below the links that pass it."""
    return Box(column.left, LOW, column.width, FULL - LOW)


def part(column: Box, top: int, height: int) -> Box:
    """A part of a column."""
    return Box(column.left, top, column.width, height)


def under(above: Box, height: int) -> Box:
    """A place of this height for a node below another node."""
    return Box(above.left, above.bottom + GAP + TITLE, above.width, height)


def note_box(place: Box, text: str) -> Box:
    """The top of a place, as high as a note's text needs."""
    return part(place, place.top, min(place.height, round(sum(_height(block, place) for block in text.split("\n\n")))))


def _height(block: str, place: Box) -> float:
    if block.startswith("#"):
        return LINE + HEADING
    letters = (place.width - (INDENT if block.startswith("*") else 0) - 2 * MARGIN) / LETTER
    return SPACE + sum(LINE * -(-len(line) // letters) for line in block.split("\n"))


def framed(titles: Sequence[str], places: Sequence[Box]) -> tuple[Group, ...]:
    """A group around each column."""
    return tuple(
        Group(
            title,
            Box(place.left - MARGIN, -HEAD, place.width + 2 * MARGIN, FULL + HEAD + MARGIN),
            COLOURS[index % len(COLOURS)],
        )
        for index, (title, place) in enumerate(zip(titles, places, strict=True))
    )


def arranged(identity: str, nodes: Sequence[Node], note: Note, groups: tuple[Group, ...]) -> Graph:
    """The workflow, its links led around what stands in their way. Raises ValueError when there are too few lanes."""
    router = _Router({node.id: node for node in nodes}, with_title(note.box))
    return Graph(identity, tuple(map(router.led, nodes)), note, groups)


class _Router:
    """Leads the links that would cross a node through a lane each, above the nodes that stand low."""

    def __init__(self, nodes: Mapping[int, Node], note: Box) -> None:
        self._nodes, self._note = nodes, note
        self._lanes = iter(LANES)

    def led(self, node: Node) -> Node:
        """The node with the way of each link that leads to it."""
        slots = {socket.name: slot for slot, socket in enumerate(node.sockets)}
        inputs = (
            replace(entry, via=self._via(entry.source, node, slots[entry.name]))
            if isinstance(entry, Socket) and entry.source
            else entry
            for entry in node.inputs
        )
        return replace(node, inputs=tuple(inputs))

    def _via(self, output: Output, target: Node, slot: int) -> tuple[Point, ...]:
        start, end = output_place(self._nodes[output.node], output.index), input_place(target, slot)
        others = [with_title(node.box) for id_, node in self._nodes.items() if id_ not in (output.node, target.id)]
        blocking = [box for box in (*others, self._note) if crosses(start, end, box)]
        if not blocking:
            return _upright(start, end)
        lane = next(self._lanes, None)
        if lane is None:
            raise ValueError(f"{target.title}: more than {len(LANES)} links of the workflow lead around nodes")
        up, down = (Point(edge, lane) for edge in (_left(blocking) - GAP // 2, _right(blocking) + GAP // 2))
        return (up, down) if any(crosses(up, end, box) for box in others) else (up,)


def _upright(start: Point, end: Point) -> tuple[Point, ...]:
    """A long way up or down goes straight through the gap before its end, where a curve would swing out over nodes."""
    if abs(end.y - start.y) < LONG:
        return ()
    turn = GAP if end.y > start.y else -GAP
    return Point(end.x - GAP / 2, start.y + turn), Point(end.x - GAP / 2, end.y - turn)


def _left(boxes: Sequence[Box]) -> int:
    return min(box.left for box in boxes)


def _right(boxes: Sequence[Box]) -> int:
    return max(box.right for box in boxes)


def with_title(box: Box) -> Box:
    """A node's place with its title."""
    return Box(box.left, box.top - TITLE, box.width, box.height + TITLE)


def output_place(node: Node, index: int) -> Point:
    """Where a link leaves a node."""
    return Point(node.box.right, node.box.top + FIRST_SLOT + SLOT * index)


def input_place(node: Node, slot: int) -> Point:
    """Where a link enters a node."""
    return Point(node.box.left, node.box.top + FIRST_SLOT + SLOT * slot)


def crosses(start: Point, end: Point, box: Box) -> bool:
    """Whether a link between two points may cross a box: it stays between their heights."""
    low, high = sorted((start.y, end.y))
    return start.x < box.right and end.x > box.left and low < box.bottom and high > box.top


def link_parts(graph: Graph) -> Iterator[tuple[Point, Point, set[int]]]:
    """Each link of a workflow piece by piece, with the ids of the nodes that it joins."""
    known = {node.id: node for node in graph.nodes}
    for link in graph.links:
        start = output_place(known[link.source.node], link.source.index)
        points = [start, *link.via, input_place(known[link.target], link.slot)]
        yield from ((one, other, {link.source.node, link.target}) for one, other in pairwise(points))
