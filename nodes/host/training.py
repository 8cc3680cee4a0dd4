"""What ComfyUI's networks need to be differentiable: they are written for inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_base import BaseModel
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.checkpoint import checkpoint

from .progress import end_if_cancelled


def differentiable_attention(function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's attention in place of kernels that have no backward."""
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


@contextmanager
def training_mode(model: BaseModel, checkpointing: bool) -> Iterator[None]:
    """Within the context, nothing that backward needs is overwritten by a later layer.

    With `checkpointing`, blocks keep only their inputs and compute the rest again (Chen et al. 2016).
    """
    before = getattr(comfy.model_management, "in_training", False)
    comfy.model_management.in_training = True  # turns off in-place kernels
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    try:
        with eager_kernels(), ExitStack() as hooks:
            for norm in norms:
                hooks.callback(norm.register_forward_pre_hook(_copy_input).remove)
            for block in blocks(model.diffusion_model) if checkpointing else ():
                hooks.callback(delattr, block, "forward")
                block.forward = partial(_checkpointed, block.forward)
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
    """The layers between which activations are kept: those of a U-Net, or a transformer's stacks."""
    found = [module for module in denoiser.modules() if isinstance(module, (ResBlock, BasicTransformerBlock))]
    return found or list(_stacked(denoiser))


def _stacked(module: nn.Module) -> Iterator[nn.Module]:
    """What is in the outermost lists, and in the lists that are in lists."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from _stacked_in(child)
        else:
            yield from _stacked(child)


def _stacked_in(stack: nn.ModuleList) -> Iterator[nn.Module]:
    for block in stack:
        if isinstance(block, nn.ModuleList):
            yield from _stacked_in(block)
        else:
            yield block


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    def compute(*args: Any, **kwargs: Any) -> Any:
        # Copies, because FLUX changes its inputs in place.
        return forward(*tree_map_only(Tensor, Tensor.clone, args), **tree_map_only(Tensor, Tensor.clone, kwargs))

    # ComfyUI writes each block's number into one dictionary: this block's own copy is what is computed with twice.
    args, kwargs = tree_map(lambda leaf: leaf, (args, kwargs))
    return checkpoint(compute, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def _copy_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # FLUX adds to its residual stream in place, and a norm keeps its input for backward.
    own = inputs[0].clone()
    if own.requires_grad:
        own.register_hook(end_if_cancelled)  # a backward pass takes longer than a forward pass
    return (own, *inputs[1:])
