"""The processes that share a run: which part is whose, and how the parts come together. Here there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Tensors = dict[str, Tensor]


class Processes:
    """One process, which does everything; `launched.Launched` is several."""

    rank = 0
    count = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that computes statistics, writes files and prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process, where the user asked for `name`."""
        return name

    def rows(self, batch_size: int) -> slice:
        """Which rows of a batch are this process's; together they are all, each once, in order."""
        return slice(batch_size * self.rank // self.count, batch_size * (self.rank + 1) // self.count)

    def ordered(self, items: Iterable[T], work: Callable[[T], Tensors]) -> Iterator[Tensors]:
        """What `work` gives for each item, in the items' order and in every process; an item is one process's work.

        Item k is that of process k modulo `count`, whose tensors come back as they are; others' come to the CPU.
        """
        return map(work, items)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in every process."""
        return value

    def total_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sums the parameters' gradients over the processes, in every process."""

    def wait(self) -> None:
        """Returns when every process is here."""


ALONE = Processes()
_current = ContextVar("processes", default=ALONE)


def current() -> Processes:
    """Those that share the run of this context: one, unless `sharing` says otherwise."""
    return _current.get()


@contextmanager
def sharing(processes: Processes) -> Iterator[None]:
    """Within the context, `current` is `processes`."""
    token = _current.set(processes)
    try:
        yield
    finally:
        _current.reset(token)


def check_batch(batch_size: int) -> None:
    """Raises ValueError for a batch of fewer rows than there are processes."""
    if batch_size < current().count:
        raise ValueError(
            f"batch_size: {batch_size} latents for {current().count} processes; raise it, or launch fewer processes"
        )


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All values of the tensors in one row."""
    return torch.cat([tensor.flatten() for tensor in tensors])
