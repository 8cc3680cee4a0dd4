"""What a running node shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.utils
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from ...unlearning_core.progress import Pace
from .live import show

if TYPE_CHECKING:
    from ...unlearning_core.progress import Progress


def training_progress(node_id: str | None, notes: list[str]) -> Callable[[Progress], None]:
    """Moves the node's bar, shows notes, phase, time, loss and figures under it, and ends the run when the user cancels
    it. What is noted on the way is added to `notes`.
    """
    bar, pace = comfy.utils.ProgressBar(1), Pace()

    def on_progress(progress: Progress) -> None:
        end_if_cancelled()
        bar.update_absolute(progress.done, progress.total)
        notes.extend(filter(None, [progress.note]))
        figures = progress.figures if progress.loss is None else {"loss": progress.loss, **progress.figures}
        told = [f"{name} {value:.4g}" for name, value in figures.items()]
        now = ", ".join([pace.line(progress.phase, progress.step, progress.steps), *told])
        show("\n".join([now, *notes]), node_id)

    return on_progress


def drawing_progress(sampling_steps: int, node_id: str | None) -> Callable[[int], None]:
    """Moves the node's bar by so many sampling steps, says under it how far it is, and ends the run when the user
    cancels it.
    """
    bar, pace = comfy.utils.ProgressBar(sampling_steps), Pace()

    def on_step(count: int) -> None:
        end_if_cancelled()
        bar.update(count)
        drawing = bar.current < sampling_steps
        show(pace.line("drawing", bar.current, sampling_steps) if drawing else "comparing the pictures", node_id)

    return on_step


@contextmanager
def interruptible(node_id: str | None) -> Iterator[None]:
    """Within the context, a cancelled run ends before the next layer of any network; the node says that it did, or what
    was wrong with its input.
    """
    handle, end = register_module_forward_pre_hook(end_if_cancelled), "ended before it was done"
    try:
        yield
        end = ""
    except ValueError as error:
        end = str(error)
        raise
    finally:
        handle.remove()
        if end:
            show(end, node_id)


class Interruptible(dict[str, Tensor]):
    """Tensors of which the next one is not given out when the user has cancelled the run."""

    def __getitem__(self, name: str) -> Tensor:
        end_if_cancelled()
        return super().__getitem__(name)


def end_if_cancelled(*_: Any) -> None:
    """Ends the run when the user cancels it; also as a hook of a module or of a gradient."""
    comfy.model_management.throw_exception_if_processing_interrupted()
