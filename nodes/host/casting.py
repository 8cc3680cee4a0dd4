"""Weights as a layer computes with them: cast from the type in which they are stored, and changed by what trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from comfy.model_base import BaseModel
from torch import Tensor, nn

from ...unlearning_core.recomputed import recompute

WORTH = 2**28  # bytes; to watch what autograd keeps takes a few percent of a small network's step


def cast_layers(model: BaseModel) -> list[Any]:
    """The layers whose weights are cast or changed for each call, where that is worth making them again in backward."""
    dtype = model.get_dtype_inference()
    layers: list[Any] = [module for module in model.diffusion_model.modules() if _is_cast(module, dtype)]
    size = sum(layer.weight.numel() for layer in layers) * dtype.itemsize
    return layers if size >= WORTH else []


@contextmanager
def recast(layers: Sequence[Any]) -> Iterator[None]:
    """Within the context, backward casts and changes these layers' weights again: autograd need not keep them."""
    before = [layer.weight_function for layer in layers]
    try:
        for layer, functions in zip(layers, before, strict=True):
            layer.weight_function = [*functions, partial(_noted, layer, functions)]
        yield
    finally:
        for layer, functions in zip(layers, before, strict=True):
            layer.weight_function = functions


def _is_cast(module: nn.Module, dtype: torch.dtype) -> bool:
    weight, functions = getattr(module, "weight", None), getattr(module, "weight_function", None)
    return isinstance(weight, Tensor) and functions is not None and bool(functions or weight.dtype != dtype)


def _noted(layer: Any, functions: Sequence[Callable[[Tensor], Tensor]], weight: Tensor) -> Tensor:
    def make() -> Tensor:
        again = layer.weight.to(weight_device, weight_dtype, copy=True)
        for function in functions:
            again = function(again)
        return again

    weight_device, weight_dtype = weight.device, weight.dtype  # not the weight, which would live on
    return recompute(weight, make)
