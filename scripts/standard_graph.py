"""The workflow of most tasks and of every model family: load, forget, measure, look and save."""

from __future__ import annotations

from dataclasses import dataclass

from layout import FULL, GAP, WIDTH, arranged, columns, framed, lowered, note_box, part, under
from workflow_graph import TITLE, Box, Graph, Node, Note, Output
from workflow_nodes import Loaded, Measuring, Prompts, Training, preview, retention, save, unlearn

FORGET, MEASURE, LOOK = 370, 430, 420  # pixels: the widths of these columns
SAVE, SLOTS = 160, 50  # pixels: heights of a node that says what it saved, and of what stands above a picture
TITLES = ("1  Load", "2  Forget", "3  Measure", "4  Look and save")
UNLEARN, MEASURED, SAVED, NOTE, SHEET = 2, 3, 4, 5, 9  # ids


@dataclass(frozen=True)
class Loading:
    """The nodes that load a model, how wide they are together, and which of their outputs is what."""

    nodes: tuple[Node, ...]
    width: int
    loaded: Loaded


@dataclass(frozen=True)
class Standard:
    """What differs between these workflows. `prefix`: the patch file's name; `note`: Markdown."""

    identity: str
    loading: Loading
    prompts: Prompts
    training: Training
    measuring: Measuring
    prefix: str
    note: str


def forget_and_measure(task: Standard) -> Graph:
    """The workflow of a task."""
    loading, prompts = task.loading, task.prompts
    look = min(LOOK, WIDTH - loading.width - FORGET - MEASURE - 3 * GAP)
    places = columns(loading.width, FORGET, MEASURE, look)
    saved = part(places[3], 0, SAVE)
    sheet = under(saved, min(FULL - SAVE - GAP - TITLE, look * 4 // 3 + SLOTS))  # a sheet is 3 wide and 4 high
    nodes = (
        *loading.nodes,
        unlearn((UNLEARN, lowered(places[1])), loading.loaded, prompts, task.training, "Unlearn Concept"),
        retention((MEASURED, places[2]), loading.loaded, UNLEARN, prompts, task.measuring),
        preview((SHEET, sheet), Output(MEASURED, 4), "Before, after, difference"),
        save((SAVED, saved), Output(MEASURED, 5), task.prefix),
    )
    return arranged(task.identity, nodes, note(loading, task.note), framed(TITLES, places))


def note(loading: Loading, text: str) -> Note:
    """A note below a workflow's loaders."""
    lowest = max(node.box.bottom for node in loading.nodes)
    top = lowest + GAP + TITLE
    return Note(NOTE, note_box(Box(0, top, loading.width, FULL - top), text), text)
