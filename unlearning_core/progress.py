"""How far a run is, told step by step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

POLLING = 0.25  # seconds between two looks whether a long operation is still wanted


@dataclass(frozen=True)
class Progress:
    """Told after every base sampling step, step of preparation and training step."""

    done: int
    total: int
    loss: float | None = None  # of the training step just taken
    figures: dict[str, float] = field(default_factory=dict)  # what else the method reports of it
    note: str = ""  # what was found out, for the user; once


OnProgress = Callable[[Progress], None]


class Reporter:
    """Counts steps for `on_progress`."""

    def __init__(self, on_progress: OnProgress = lambda progress: None, total: int = 0) -> None:
        self.on_progress = on_progress
        self.done, self.total = 0, total

    def __call__(self, loss: float | None = None, figures: dict[str, float] | None = None) -> None:
        """One step more, with the loss and figures of a training step."""
        self.done += 1
        self.on_progress(Progress(self.done, self.total, loss, figures or {}))

    def expect(self, steps: int) -> None:
        """So many steps more will come."""
        self.total += steps

    def tell(self, note: str) -> None:
        """What was found out, in a line, without a step more."""
        self.on_progress(Progress(self.done, self.total, note=note))

    def during(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises: one long operation in another thread, while `on_progress` may end the run.

        The thread of a run that ended goes on to the end of its operation, and what it gives is lost.
        """
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        Thread(target=run, daemon=True).start()
        while not wait([result], POLLING).done:
            self.on_progress(Progress(self.done, self.total))
        return result.result()
