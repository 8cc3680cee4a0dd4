"""Tensors that backward makes again, so that autograd need not keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

Make = Callable[[], Tensor]

_known: dict[StorageWeakRef, Make] = {}  # of living tensors, and of some that are gone
_most = 256  # of them before those that are gone are taken out


class Saved(NamedTuple):
    """How autograd keeps a tensor for backward, and how it reads what it kept."""

    save: Callable[[Tensor], Any]
    load: Callable[[Any], Tensor]


class _Part(NamedTuple):
    """What is kept of a tensor that can be made again: how, and where in its memory it lies."""

    make: Make
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


def recompute(tensor: Tensor, make: Make) -> Tensor:
    """The tensor, which `saving` does not keep: `make` gives it again, in a memory layout of the same kind."""
    global _most
    if len(_known) >= _most:
        _forget_gone()
        _most = 2 * len(_known) + 256
    _known[StorageWeakRef(tensor.untyped_storage())] = make
    return tensor


def is_recomputed(tensor: Tensor) -> bool:
    """Whether it is such a tensor, or lies in one."""
    return StorageWeakRef(tensor.untyped_storage()) in _known


@contextmanager
def saving(saved: Saved) -> Iterator[None]:
    """Within the context, autograd keeps how to make what can be made again, and all else as it is told."""

    def pack(tensor: Tensor) -> Any:
        make = _known.get(StorageWeakRef(tensor.untyped_storage()))
        if make is None:
            return saved.save(tensor)
        return _Part(make, tensor.size(), tensor.stride(), int(tensor.storage_offset()))

    @torch.no_grad()
    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, _Part):
            return kept.make().as_strided(kept.size, kept.stride, kept.offset)
        return saved.load(kept)

    try:
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _forget_gone()  # with what `make` refers to


def _forget_gone() -> None:
    for storage in [storage for storage in _known if storage.expired()]:
        del _known[storage]


def _with_version(tensor: Tensor) -> tuple[Tensor, int]:
    return tensor, tensor._version


def _unchanged(kept: tuple[Tensor, int]) -> Tensor:
    tensor, version = kept
    if tensor._version != version:  # autograd itself looks only where no hooks are
        raise RuntimeError("a tensor that backward needs was overwritten by an inplace operation")
    return tensor


AS_IT_IS = Saved(_with_version, _unchanged)
