"""What backward makes again is not kept, and gives the same gradients; what is overwritten is noticed."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from unlearning_core.recomputed import AS_IT_IS, is_recomputed, recompute, saving


def layer(x: Tensor, stored: Tensor) -> tuple[Tensor, StorageWeakRef]:
    """With a weight that is cast for it."""
    weight = recompute(stored.float(), stored.float)
    assert is_recomputed(weight.T)
    return F.linear(x, weight), StorageWeakRef(weight.untyped_storage())


def test_gradients_are_the_same_and_the_tensor_is_gone() -> None:
    generator = torch.Generator().manual_seed(0)
    stored = torch.randn(5, 3, generator=generator).half()
    x = torch.randn(2, 3, generator=generator, requires_grad=True)
    [plain] = torch.autograd.grad(F.linear(x, stored.float()).square().sum(), x)
    with saving(AS_IT_IS):
        y, weight = layer(x, stored)
        assert weight.expired()
        loss = y.square().sum()
    [again] = torch.autograd.grad(loss, x)
    assert torch.equal(plain, again)


def test_another_tensor_at_the_same_place_is_not_mistaken_for_it() -> None:
    stored, kept = torch.ones(64, 64).half(), list[Tensor]()
    for _ in range(600):
        layer(torch.ones(1, 64), stored)  # lives as long as this line
        kept.append(torch.zeros(64, 64))  # of the same size, so where it was
        assert not is_recomputed(kept[-1])


def test_what_makes_a_tensor_is_forgotten_with_it() -> None:
    class Stored:
        weight = torch.ones(3, 3).half()

        def make(self) -> Tensor:
            return self.weight.float()

    stored = Stored()
    gone = weakref.ref(stored)
    with saving(AS_IT_IS):
        F.linear(torch.ones(1, 3, requires_grad=True), recompute(stored.make(), stored.make)).sum().backward()
    del stored
    assert gone() is None


def test_what_was_overwritten_is_noticed() -> None:
    x = torch.ones(3, requires_grad=True)
    with saving(AS_IT_IS):
        y = x.exp()
        loss = y.sum()
        y.detach().mul_(2)  # through another view
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()
