"""What the user sees of Unlearn Concept while it works, and what ends its training early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ...unlearning_core.methods import GradientMethod, Method
from ...unlearning_core.progress import OnProgress, Progress
from ...unlearning_core.prompts import Prompts
from ...unlearning_core.settings import Settings
from .live import Curve, running, send_pairs
from .model import ComfyModel
from .preview import previews, wanted
from .progress import training_progress
from .stopping import stoppable


@contextmanager
def watched(
    host: ComfyModel, method: Method, prompts: Prompts, settings: Settings, node_id: str | None, notes: list[str]
) -> Iterator[OnProgress]:
    """Yields what is to be told of each step: it shows text, and while it trains, a curve, previews and a button."""
    text = training_progress(node_id, notes)
    if not isinstance(method, GradientMethod):
        yield text
        return
    run = running(node_id)
    curve = Curve(run)
    pictures = [previews(host, prompts, settings, partial(send_pairs, run))] if wanted(run) else []
    with stoppable(run) as end_early:
        told: tuple[OnProgress, ...] = (text, curve, *pictures, end_early)

        def on_progress(progress: Progress) -> None:
            for each in told:
                each(progress)

        try:
            yield on_progress
        finally:
            curve.end()
