"""Stop and keep: training ends after the current step, and the node goes on with the patch so far.

ComfyUI's own interrupt cancels the whole prompt instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web
from server import PromptServer

from ...unlearning_core.progress import TRAINING, Enough, OnProgress, Progress
from .live import Run

PATH = "/unlearning/stop"


@dataclass
class _Asked:
    """What is known of a run that can be stopped."""

    training: bool = False
    stop: bool = False


_runs: dict[Run, _Asked] = {}


@contextmanager
def stoppable(run: Run) -> Iterator[OnProgress]:
    """Within the context, `stop` ends the run's training; yields what is to be told of each step, after all others."""
    asked = _runs[run] = _Asked()

    def on_progress(progress: Progress) -> None:
        asked.training = progress.phase == TRAINING
        if asked.training and asked.stop:
            raise Enough

    try:
        yield on_progress
    finally:
        del _runs[run]


def stop(run: Run) -> bool:
    """Ends a run's training after its current step; False when no such run trains now."""
    asked = _runs.get(run)
    if asked is None or not asked.training:
        return False
    asked.stop = True
    return True


async def answer(request: web.Request) -> web.Response:
    """`POST /unlearning/stop` with the JSON {"prompt_id": …, "node_id": …}, as ComfyUI's messages name them.

    Status 200 when training will end, 404 when no such run trains now, 400 for another body.
    """
    try:
        asked = await request.json()
        run = Run(asked["prompt_id"], asked["node_id"])
        stopped = stop(run)
    except (ValueError, KeyError, TypeError):
        return web.json_response({"error": 'the body must be JSON: {"prompt_id": "…", "node_id": "…"}'}, status=400)
    if not stopped:
        error = f"prompt {run.prompt_id}: its node {run.node_id} does not train now"
        return web.json_response({"error": error}, status=404)
    return web.json_response({"stopped": run.node_id})


def add_route() -> None:
    """Makes the running ComfyUI answer at PATH."""
    PromptServer.instance.routes.post(PATH)(answer)
