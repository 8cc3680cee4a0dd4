"""What a running node shows, sent to the front end that queued it as it comes: text, a curve and small pictures."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from time import monotonic
from typing import Any, NamedTuple

from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ...unlearning_core.progress import TRAINING, Progress, curve

PANEL, TEXT = "unlearning.live", "unlearning.told"  # events
LINE_END = "  \n"  # Vue nodes read text as Markdown, where a plain line end is a space
SIDE = 128  # pixels of a picture, at most
POINTS = 100  # of a curve
EVERY = 0.5  # seconds between two curves


class Run(NamedTuple):
    """One execution of one node."""

    prompt_id: str
    node_id: str  # as ComfyUI's messages name it: `12:7` in a subgraph


class Pair(NamedTuple):
    """What two models draw of one prompt; None is not drawn yet."""

    prompt: str
    base: Image.Image | None
    now: Image.Image | None


def running(node_id: str | None) -> Run:
    """The run that this thread executes; outside of ComfyUI's executor its prompt has no id."""
    context = get_executing_context()
    return Run(context.prompt_id if context else "", str(node_id))


def send(run: Run, **content: Any) -> None:
    """Fills the node's panel; what is not in `content` stays as it was."""
    _send(PANEL, run, content)


def show(text: str, node_id: str | None) -> None:
    """Shows text under the node, in the workflow that runs: ComfyUI's own `send_progress_text` names no prompt."""
    _send(TEXT, running(node_id), {"text": text.replace("\n", LINE_END)})


def send_pairs(run: Run, pairs: Sequence[Pair], step: int | None = None) -> None:
    """Shows pictures in place of earlier ones, of a training step where they are."""
    shown = [{"prompt": pair.prompt, "base": _url(pair.base), "now": _url(pair.now)} for pair in pairs]
    send(run, pairs=shown, seen=step)


def _send(event: str, run: Run, content: Mapping[str, Any]) -> None:
    server = PromptServer.instance
    server.send_sync(event, {"prompt_id": run.prompt_id, "node": run.node_id, **content}, server.client_id)


def _url(picture: Image.Image | None) -> str | None:
    if picture is None:
        return None
    small, file = picture.copy(), BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


class Curve:
    """Sends the loss of a training run so far, and whether it trains now."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._losses: list[float] = []
        self._steps = (0, 0)
        self._sent = 0.0

    def __call__(self, progress: Progress) -> None:
        """Told of each step."""
        if progress.phase != TRAINING or progress.loss is None:
            return
        self._losses.append(progress.loss)
        self._steps = progress.step, progress.steps
        if monotonic() - self._sent >= EVERY:
            self._send(training=True)

    def end(self) -> None:
        """No step will come."""
        if self._losses:
            self._send(training=False)

    def _send(self, training: bool) -> None:
        step, steps = self._steps
        send(self._run, losses=curve(self._losses, POINTS), step=step, steps=steps, training=training)
        self._sent = monotonic()
