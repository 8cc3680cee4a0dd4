"""Whether a pipeline's network is what its configuration and weights say, which is all that a patch's record knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OURS = ("training", "gradient_checkpointing")  # what a module may have otherwise


def check_network(network: nn.Module) -> None:
    """Raises ValueError when something was added to a network, in one line that names it.

    Such as adapters, IP-Adapter, FreeU, fused projections, foreign attention processors, hooks of offloading or
    casting, compilation, or weights that are quantised or not loaded.
    """
    found = _wrapped(network) or _processors(network) or _hooks(network) or _storage(network) or _changes(network)
    if found:
        raise ValueError(f"model: {found}")


def _wrapped(network: nn.Module) -> str | None:
    kind = type(network)
    if not kind.__module__.startswith("diffusers."):
        return f"the network is wrapped in {kind.__name__}; use the pipeline before it is wrapped or compiled"
    if any(module._compiled_call_impl is not None for module in network.modules()):
        return "the network is compiled; use the pipeline before it is compiled"
    return None


def _processors(network: Any) -> str | None:
    for place, processor in getattr(network, "attn_processors", {}).items():
        kind = type(processor)
        if isinstance(processor, nn.Module) or not kind.__module__.startswith("diffusers."):
            return (
                f"{place} is {kind.__name__}, which is no part of the base; unload what put it there (such as "
                "unload_ip_adapter()) or call set_default_attn_processor()"
            )
    return None


def _hooks(network: nn.Module) -> str | None:
    for name, module in network.named_modules():
        if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
            return (
                f"{name or 'the network'} ({type(module).__name__}) has hooks, as offloading and layerwise casting set "
                "them; use the pipeline before they are enabled, with .to(device)"
            )
    return None


def _storage(network: nn.Module) -> str | None:
    for name, parameter in network.named_parameters():
        kind = type(parameter.data).__name__ if type(parameter) is nn.Parameter else type(parameter).__name__
        plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
        if not plain or not parameter.is_floating_point():
            return f"{name} is quantised ({kind}, {parameter.dtype}); load the weights unquantised"
        if parameter.is_meta:
            return f"{name} is not loaded (on the meta device); load the pipeline without offloading"
    return None


def _changes(network: Any) -> str | None:
    """What differs from a new network of the same class and configuration."""
    with torch.device("meta"):
        plain = type(network).from_config(network.config)
    modules = dict(plain.named_modules())
    for name, module in network.named_modules():
        if name not in modules or type(module) is not type(modules[name]):
            return (
                f"{name} ({type(module).__name__}) is no part of {type(network).__name__}; merge adapters with "
                "fuse_lora(), then unload_lora_weights(), or unload them"
            )
        if name and _numbers(module) != _numbers(modules[name]):
            changed = sorted(key for key, _ in _numbers(module).items() ^ _numbers(modules[name]).items())
            return (
                f"{name} was changed after loading ({', '.join(dict.fromkeys(changed))}); undo it, as disable_freeu() "
                "and unfuse_qkv_projections() do"
            )
    ours, theirs = ({key: weight.shape for key, weight in net.named_parameters()} for net in (network, plain))
    if ours != theirs:
        name = min(name for name, _ in ours.items() ^ theirs.items())
        return f"{name} is not as the configuration of {type(network).__name__} says; load the pipeline again"
    return None


def _numbers(module: nn.Module) -> dict[str, float]:
    """Settings that forward may read."""
    return {key: value for key, value in vars(module).items() if isinstance(value, (int, float)) and key not in OURS}
