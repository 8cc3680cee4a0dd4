"""What a network keeps of one call for the next: right within one sampling run, wrong once its weights change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


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


@contextmanager
def nothing_kept(network: nn.Module) -> Iterator[None]:
    """After the context, every module has the attributes that it had before; for a network that stays on its device."""
    before = [(vars(module), dict(vars(module))) for module in network.modules()]
    try:
        yield
    finally:
        for now, then in before:
            if now.keys() != then.keys() or any(now[name] is not value for name, value in then.items()):
                now.clear()
                now.update(then)
