"""What ComfyUI's networks need to be differentiable: they are written for inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_base import BaseModel
from torch import Tensor, nn

from ...unlearning_core.digests import tensors
from ...unlearning_core.nested import mapped, tensors_in
from ...unlearning_core.recomputed import AS_IT_IS, saving
from .calls import attributes
from .casting import cast_layers, recast
from .copying import copying
from .progress import end_if_cancelled

OF_MODULES = vars(nn.Module()).keys()  # attributes that every module has


def differentiable_attention(function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's attention in place of kernels that have no backward."""
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


@dataclass
class Backward:
    """How a network is made to keep what backward needs."""

    checkpointing: bool = False  # blocks keep only their inputs and compute the rest again (Chen et al. 2016)
    copying: bool = False  # what a later layer overwrites is copied first, which takes time


@contextmanager
def training_mode(model: BaseModel, backward: Backward, parameters: Sequence[Tensor]) -> Iterator[None]:
    """Within the context, the network can be differentiated by `parameters`.

    Autograd raises RuntimeError where a layer overwrites what backward needs, unless `backward` is copying.
    """
    before = getattr(comfy.model_management, "in_training", False)
    comfy.model_management.in_training = True  # turns off in-place kernels
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    try:
        with eager_kernels(), ExitStack() as hooks:
            casts = cast_layers(model)
            saved = hooks.enter_context(copying()) if backward.copying else AS_IT_IS
            if casts or backward.copying:
                hooks.enter_context(recast(casts))
                hooks.enter_context(saving(saved))
            for norm in norms:
                hooks.callback(norm.register_forward_pre_hook(_copy_input).remove)
            for block in blocks(model.diffusion_model) if backward.checkpointing else ():
                hooks.callback(delattr, block, "forward")
                block.forward = partial(_checkpointed, block, block.forward, parameters)
            yield
    finally:
        comfy.model_management.in_training = before


@contextmanager
def eager_kernels() -> Iterator[None]:
    """Within the context, comfy_kitchen's functions are those of its eager backend: its operators have no backward."""
    try:
        import comfy_kitchen
        from comfy_kitchen.backends import eager
    except ImportError:  # ComfyUI works without
        yield
        return
    own = {name: getattr(comfy_kitchen, name) for name in eager.__all__ if hasattr(comfy_kitchen, name)}
    try:
        for name in own:
            setattr(comfy_kitchen, name, getattr(eager, name))
        yield
    finally:
        for name, function in own.items():
            setattr(comfy_kitchen, name, function)


def blocks(denoiser: nn.Module) -> list[nn.Module]:
    """The layers between which activations are kept: a U-Net's, a transformer's stacks, or the network's own parts."""
    found = [module for module in denoiser.modules() if isinstance(module, (ResBlock, BasicTransformerBlock))]
    return list(dict.fromkeys(found or _stacked(denoiser))) or list(denoiser.children())


def _stacked(module: nn.Module) -> Iterator[nn.Module]:
    """What is in lists of modules, wherever they are, and in lists of lists."""
    for child in module.children():
        if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _stacked(child)


def _checkpointed(
    block: nn.Module, forward: Callable[..., Any], parameters: Sequence[Tensor], *args: Any, **kwargs: Any
) -> Any:
    """What a block returns, of which backward keeps the inputs alone, and what the network has left on the block."""
    places = attributes(block)
    left = [dict(place) for place in places]
    # ComfyUI writes each block's number into one dictionary: this block's own copy is what is computed with twice.
    given = mapped((args, kwargs, [_differentiable(values) for values in left]), lambda tensor: tensor)
    inputs = tensors_in(given)
    returned: list[Any] = []

    def compute(*tensors: Tensor) -> tuple[Tensor, ...]:
        copies = iter([tensor.clone() for tensor in tensors])  # FLUX changes its inputs in place
        args, kwargs, inputs_left = mapped(given, lambda _: next(copies))
        states = [values | own for values, own in zip(left, inputs_left, strict=True)]
        with _recalled(places, states) if returned else nullcontext():
            output = forward(*args, **kwargs)
        returned[:] = [mapped(output, lambda _: torch.empty(0))]
        return tuple(tensors_in(output))

    outputs = iter(_Recomputed.apply(compute, len(inputs), *inputs, *parameters))  # type: ignore[no-untyped-call]
    return mapped(returned[0], lambda _: next(outputs))


def _differentiable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a module's attributes those that a gradient goes to."""
    return {
        name: value
        for name, value in values.items()
        if name not in OF_MODULES and any(tensor.requires_grad for tensor in tensors(value).values())
    }


@contextmanager
def _recalled(places: Sequence[dict[str, Any]], states: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Within the context, attributes are what they were."""
    now = [dict(place) for place in places]
    try:
        _restore(places, states)
        yield
    finally:
        _restore(places, now)


def _restore(places: Sequence[dict[str, Any]], states: Sequence[dict[str, Any]]) -> None:
    for place, state in zip(places, states, strict=True):
        place.clear()
        place.update(state)


class _Recomputed(torch.autograd.Function):
    """Computes again in backward, in a graph of its own, where autograd notices what is overwritten.

    torch.utils.checkpoint does not: what it saves in the second pass has no versions.
    """

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., tuple[Tensor, ...]], count: int, *tensors: Tensor) -> Any:
        """`count` inputs of the block, and then the parameters."""
        ctx.compute, ctx.parameters = compute, tensors[count:]
        ctx.save_for_backward(*tensors[:count])
        return compute(*tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        needed = ctx.needs_input_grad[2:]
        inputs = [tensor.detach().requires_grad_(need) for tensor, need in zip(ctx.saved_tensors, needed, strict=False)]
        with torch.enable_grad():
            outputs = ctx.compute(*inputs)
        by = [*inputs, *ctx.parameters]
        wanted = [tensor for tensor, need in zip(by, needed, strict=True) if need]
        roots = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        found = iter(
            torch.autograd.grad(
                [root for root, _ in roots], wanted, [gradient for _, gradient in roots], allow_unused=True
            )
        )
        return None, None, *(next(found) if need else None for need in needed)


def _copy_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # FLUX adds to its residual stream in place, and a norm keeps its input for backward.
    own = inputs[0].clone()
    if own.requires_grad:
        own.register_hook(end_if_cancelled)  # a backward pass takes longer than a forward pass
    return (own, *inputs[1:])
