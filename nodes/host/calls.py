"""What a network keeps of one call for the next: right within one sampling run, wrong once its weights change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import is_
from typing import Any

from torch import nn

MISSING = object()  # in the place of an attribute that was not there
Isolation = Callable[[nn.Module], AbstractContextManager[None]]  # what surrounds a call of a network


def forget_calls(network: nn.Module) -> None:
    """Empties caches that would outlive a change of weights, such as HiDream-O1's keys and values of a prompt."""
    for module in network.modules():
        clear: Any = getattr(module, "clear_kv_cache", None)
        if clear is not None:
            clear()


@contextmanager
def caches_emptied(network: nn.Module) -> Iterator[None]:
    """Before and after the context the network's caches are empty."""
    forget_calls(network)
    try:
        yield
    finally:
        forget_calls(network)


def attributes(network: nn.Module) -> list[dict[str, Any]]:
    """Where the modules of a network have what a call may leave there: the attributes and buffers of each."""
    return [place for module in network.modules() for place in (vars(module), module._buffers)]


class Isolated:
    """Calls of a network that stays on its device: each finds the modules' attributes as the first one found them.

    What a call has left stays until the next, for a backward pass that computes blocks again.
    """

    def __init__(self) -> None:
        self._places: list[dict[str, Any]] = []
        self._left: list[tuple[dict[str, Any], str, Any]] = []  # a module's attributes, one's name, what it was

    @contextmanager
    def __call__(self, network: nn.Module) -> Iterator[None]:
        """Surrounds one call; all calls are of one network."""
        self._places = self._places or attributes(network)
        for now, name, value in self._left:
            if value is MISSING:
                now.pop(name, None)
            else:
                now[name] = value
        before = [(now, now.copy()) for now in self._places]
        try:
            yield
        finally:
            self._left = [
                (now, name, then.get(name, MISSING))
                for now, then in before
                if not _same(now, then)
                for name in now.keys() | then.keys()
                if now.get(name, MISSING) is not then.get(name, MISSING)
            ]


def _same(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether they hold the same objects in the same order; Python's loops would take longer than a GPU's step."""
    return now.keys() == then.keys() and all(map(is_, now.values(), then.values()))
