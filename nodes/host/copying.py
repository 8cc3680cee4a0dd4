"""For networks that overwrite what backward needs: each such tensor is copied before.

PyTorch's `allow_mutation_on_saved_tensors` confuses tensors: it knows one by its address, at which there may be another
once the one has been copied. It does not see either that a write reaches other views of the same memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...unlearning_core.digests import tensors
from ...unlearning_core.recomputed import Saved


@contextmanager
def copying() -> Iterator[Saved]:
    """Within the context, each tensor that is saved as it says is read as it was, whatever is written to it later."""
    with (mode := _Copying()):
        yield Saved(mode.save, attrgetter("tensor"))


class _Saved:
    """A tensor that backward needs; its memory as long as it lies there, which it has for itself after a copy."""

    def __init__(self, tensor: Tensor, memory: _Memory) -> None:
        self.tensor = tensor
        self.memory: _Memory | None = memory


class _Memory:
    """A storage in which tensors lie that backward needs; it exists as long as one of them does."""

    def __init__(self) -> None:
        self.saved: WeakSet[_Saved] = WeakSet()

    def save(self, tensor: Tensor) -> _Saved:
        """The same for the same tensor."""
        known = next((saved for saved in self.saved if saved.tensor is tensor), None)
        saved = known or _Saved(tensor, self)
        self.saved.add(saved)
        return saved

    def copy(self) -> None:
        """All leave it."""
        for saved in list(self.saved):
            saved.tensor, saved.memory = saved.tensor.clone(), None


class _Copying(TorchDispatchMode):
    """Sees what operators write to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memories: WeakValueDictionary[int, _Memory] = WeakValueDictionary()

    def save(self, tensor: Tensor) -> _Saved:
        """What autograd keeps in a tensor's place."""
        return self._memories.setdefault(_address(tensor), _Memory()).save(tensor)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if function._schema.is_mutable:
            for tensor in tensors(list(_written(function, args, named))).values():
                if memory := self._memories.pop(_address(tensor), None):
                    memory.copy()
        return function(*args, **named)


def _written(function: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments that an operator writes to."""
    for index, argument in enumerate(function._schema.arguments):
        if argument.is_write:
            yield args[index] if index < len(args) else named.get(argument.name)


def _address(tensor: Tensor) -> int:
    """Of the storage, which is no other's as long as the tensor exists."""
    return tensor.untyped_storage()._cdata
