"""What a running node shows beside its text: a curve and small pictures, sent to the front end as they come."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from time import monotonic
from typing import Any, NamedTuple

from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ...unlearning_core.progress import TRAINING, Progress, curve

EVENT = "unlearning.live"
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
    """Tells the front end that queued the run what there is to show; what is not in `content` stays as it was."""
    server = PromptServer.instance
    server.send_sync(EVENT, {"prompt_id": run.prompt_id, "node": run.node_id, **content}, server.client_id)


def send_pairs(run: Run, pairs: Sequence[Pair]) -> None:
    """Shows pictures in place of earlier ones."""
    shown = [{"prompt": pair.prompt, "base": _url(pair.base), "now": _url(pair.now)} for pair in pairs]
    send(run, pairs=shown)


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
