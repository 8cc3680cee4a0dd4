"""What ComfyUI's networks need to be differentiable: they are written for inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
from torch import Tensor, nn


def differentiable_attention(function: Any, *args: Any, **kwargs: Any) -> Tensor:
    """PyTorch's attention in place of kernels that have no backward."""
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Within the context, nothing that backward needs is overwritten by a later layer."""
    before = getattr(comfy.model_management, "in_training", False)
    comfy.model_management.in_training = True  # turns off in-place kernels
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    try:
        with ExitStack() as hooks:
            for norm in norms:
                hooks.callback(norm.register_forward_pre_hook(_copy_input).remove)
            yield
    finally:
        comfy.model_management.in_training = before


def _copy_input(norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # FLUX adds to its residual stream in place, and a norm keeps its input for backward.
    return (inputs[0].clone(), *inputs[1:])
