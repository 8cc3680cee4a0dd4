"""How far a run is, told step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from threading import Thread
from time import monotonic
from typing import TypeVar

T = TypeVar("T")

POLLING = 0.25  # seconds between two looks whether a long operation is still wanted
TRAINING = "training"  # the phase whose steps have a loss


@dataclass(frozen=True)
class Progress:
    """Told after every base sampling step, step of preparation and training step."""

    done: int
    total: int
    loss: float | None = None  # of the training step just taken
    figures: dict[str, float] = field(default_factory=dict)  # what else the method reports of it
    phase: str = ""  # what is being done
    step: int = 0  # of the phase
    steps: int = 0  # that the phase takes
    note: str = ""  # what was found out, for the user; once


OnProgress = Callable[[Progress], None]


class Enough(Exception):
    """Raised by `on_progress` after a training step: the run ends there, with what is trained so far.

    Processes that share a run must raise it after the same step.
    """


class Reporter:
    """Counts steps for `on_progress`."""

    def __init__(self, on_progress: OnProgress = lambda progress: None, total: int = 0) -> None:
        self.on_progress = on_progress
        self.done, self.total = 0, total
        self.enough = False  # whether training is to end
        self._phase, self._first, self._steps = "", 0, total

    def begin(self, phase: str, steps: int) -> None:
        """The next `steps` steps are those of a phase; 0 when they are not counted."""
        self._phase, self._first, self._steps = phase, self.done, steps
        self._tell()

    def __call__(self, loss: float | None = None, figures: dict[str, float] | None = None) -> None:
        """One step more, with the loss and figures of a training step."""
        self.done += 1
        self._tell(loss, figures)

    def expect(self, steps: int) -> None:
        """So many steps more will come."""
        self.total += steps

    def tell(self, note: str) -> None:
        """What was found out, in a line, without a step more."""
        self._tell(note=note)

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
            self._tell()
        return result.result()

    def _tell(self, loss: float | None = None, figures: dict[str, float] | None = None, note: str = "") -> None:
        phase = self._phase, self.done - self._first, self._steps
        try:
            self.on_progress(Progress(self.done, self.total, loss, figures or {}, *phase, note))
        except Enough:
            self.enough = True


class Pace:
    """How far a phase is, and how long it takes from here at its speed so far."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._phase, self._start, self._first = "", 0.0, 0

    def line(self, phase: str, step: int, steps: int) -> str:
        """`training: step 34 of 100, 21 s left of this part`; the phase alone without steps, no time at the first."""
        if phase != self._phase or step < self._first:
            self._phase, self._start, self._first = phase, self._clock(), step
        if not steps:
            return phase
        taken, told = step - self._first, f"{phase}: step {step} of {steps}"
        if not taken:
            return told
        seconds = (steps - step) * (self._clock() - self._start) / taken
        return f"{told}, {_duration(seconds)} left of this part"


class Budget:
    """When something that is only looked at may take time: it never has more than SHARE of the time since the start.

    The first time is after FIRST seconds, so that short runs do without, and the next ones at least EVERY apart.
    """

    SHARE, FIRST, EVERY = 0.04, 3.0, 2.0

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._next = self._start + self.FIRST
        self.spent = 0.0  # seconds
        self.last = 0.0  # seconds that it took the last time

    def allows(self, seconds: float) -> bool:
        """Whether work that will take so many seconds fits now."""
        return self._clock() >= self._next and self.affords(seconds)

    def affords(self, seconds: float, ahead: float = 0.0) -> bool:
        """Whether such work fits once so many seconds ahead have passed, however short ago the last was."""
        return self.spent + seconds <= self.SHARE * (self._clock() - self._start + ahead)

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Counts what is done within the context."""
        began = self._clock()
        try:
            yield
        finally:
            now = self._clock()
            self.last = now - began
            self.spent += self.last
            self._next = now + self.EVERY


def curve(values: Sequence[float], points: int) -> list[float]:
    """At most `points` means of equal runs of values, in their order."""
    size = -(-len(values) // points) or 1
    return [fmean(values[start : start + size]) for start in range(0, len(values), size)]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
