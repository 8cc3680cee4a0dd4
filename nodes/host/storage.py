"""Weights that a loader stores in its own way: quantized, packed, or with a shape that is not theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from comfy.model_base import BaseModel
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...unlearning_core.digests import inner_tensors
from ...unlearning_core.fingerprint import PLAIN_BITS


def is_ordinary(weight: Tensor) -> bool:
    """Whether it is of torch's own class."""
    return type(weight) in (Tensor, nn.Parameter)


def is_plain(weight: Tensor) -> bool:
    """Whether it is an ordinary tensor of floating-point numbers, plain fp8 among them."""
    return is_ordinary(weight) and weight.is_floating_point()


def storage_bits(weight: Tensor) -> int:
    """Bits that a quantized weight takes for each number, without its scales; PLAIN_BITS for one that is not."""
    if is_plain(weight):
        return PLAIN_BITS
    numbers, *_scales = inner_tensors(weight)
    return min(PLAIN_BITS, 8 * numbers.nbytes // weight.numel())


def ordinary_parameters(network: BaseModel) -> dict[int, nn.Parameter]:
    """Dequantized copies of the parameters that their modules can dequantize, by the parameters' ids."""
    return {
        id(parameter): nn.Parameter(convert(parameter).clone(), requires_grad=False)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if not is_plain(parameter) and (convert := getattr(module, f"convert_{name}", None))
    }


@contextmanager
def ordinary_weights(network: nn.Module) -> Iterator[None]:
    """Within the context, copies stand in for inference tensors, through which no gradient passes.

    Use it under `torch.inference_mode(False)`; the network must not be moved meanwhile.
    """
    places = [(module, name, each) for module in network.modules() for name, each in module._parameters.items()]
    own = [(module, name, each) for module, name, each in places if each is not None and each.is_inference()]
    try:
        for module, name, parameter in own:
            module._parameters[name] = nn.Parameter(parameter.clone(), requires_grad=False)
        yield
    finally:
        for module, name, parameter in own:
            module._parameters[name] = parameter


def forget_quantization(network: BaseModel) -> None:
    """Modules whose weights were dequantized compute with them from now on."""
    for module in network.modules():
        if getattr(module, "layout_type", None) is not None and is_plain(module.weight):
            module.layout_type = None


class _Arguments(TorchFunctionMode):
    """Keeps every tensor that torch's functions are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        self.tensors += [value for value in given if isinstance(value, Tensor)]
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def read_by_module(module: nn.Module, name: str, weight: Tensor) -> Tensor | None:
    """What a module's own forward pass makes of its stored weight `name`; None when that cannot be seen.

    The module dequantizes it for an input of zeros and hands it to one of torch's functions, where it is seen.
    """
    reader = copy.copy(module)
    reader._parameters = {**module._parameters, name: weight}  # type: ignore[dict-item]
    rows = 3 if weight.shape[0] == 2 else 2  # so that the input has not the weight's shape
    x = torch.zeros(rows, *(weight.shape[1:] if weight.ndim > 1 else weight.shape), device=weight.device)
    with _Arguments() as seen:
        try:
            reader(x)
        except (AttributeError, RuntimeError, TypeError):  # it asks for more than an input, or another one
            return None
    whole = [tensor for tensor in seen.tensors if is_plain(tensor) and tensor.shape == weight.shape]
    return whole[-1] if whole else None  # before the last one its scales may be missing
