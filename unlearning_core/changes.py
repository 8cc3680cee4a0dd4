"""What the tensors of a patch change: LoRA-file keys, which of them belong together, and the changes they stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .deltas import low_rank_product

Shape = tuple[int, ...]

# The keys of one weight's change, behind its module's name: a full change, kohya's LoRA, peft's LoRA.
WEIGHT_FORMS = (("diff",), ("lora_up.weight", "lora_down.weight", "alpha"), ("lora_B.weight", "lora_A.weight"))
BIAS = "diff_b"
LARGEST = 1e30  # of a product's numbers
MODULE = r"[!-~]{1,300}"  # its name, in messages too
KEY = re.compile(rf"({MODULE})\.({'|'.join(re.escape(suffix) for suffix in (*sum(WEIGHT_FORMS, ()), BIAS))})")
TYPES = {  # of tensors, as safetensors' headers name them
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def module_of(key: str) -> str:
    """The module that a patch tensor changes: `lora_unet_….to_k` for `lora_unet_….to_k.lora_up.weight`.

    Raises ValueError for a key that no patch has.
    """
    return _parts(key)[0]


def some_rows(weight: Tensor, rows: int) -> Tensor:
    """At most `rows` of a weight's rows, evenly spaced."""
    return weight[:: -(-len(weight) // rows)]


def weight_changes(tensors: Mapping[str, Tensor], rows: int | None = None) -> dict[str, Tensor]:
    """The full change of each weight at strength 1 in fp32, under its patch name; or `rows` of it, as `some_rows`.

    The tensors are those that `change_shapes` accepts.
    """

    def part(tensor: Tensor) -> Tensor:
        return (tensor if rows is None else some_rows(tensor, rows)).float()

    changes = {}
    for key, tensor in tensors.items():
        module, suffix = _parts(key)
        if suffix == "diff":
            changes[f"{module}.weight"] = part(tensor)
        elif suffix == BIAS:
            changes[f"{module}.bias"] = part(tensor)
        elif suffix == "lora_up.weight":
            down, alpha = tensors[f"{module}.lora_down.weight"].float(), tensors[f"{module}.alpha"].float()
            changes[f"{module}.weight"] = (alpha / len(down)) * low_rank_product(part(tensor), down)
        elif suffix == "lora_B.weight":
            changes[f"{module}.weight"] = low_rank_product(part(tensor), tensors[f"{module}.lora_A.weight"].float())
    return changes


def change_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """The shape of each weight's change, under its patch name.

    Raises ValueError, which names the tensor, for a key that no patch has, one without those that belong to it, two
    changes of one weight, another type than TYPES, no elements, factors that do not fit, or an alpha that is no scalar.
    """
    suffixes: dict[str, set[str]] = {}
    for key, tensor in tensors.items():
        module, suffix = _parts(key)
        suffixes.setdefault(module, set()).add(suffix)
        if tensor.dtype not in TYPES.values():
            raise ValueError(f"{key} has the type {str(tensor.dtype).removeprefix('torch.')}, which no change has")
        if not tensor.numel():
            raise ValueError(f"{key} is empty")
    if not suffixes:
        raise ValueError("it has no tensors")
    shapes: dict[str, Shape] = {}
    for module, found in suffixes.items():
        if BIAS in found:
            shapes[f"{module}.bias"] = tuple(tensors[f"{module}.{BIAS}"].shape)
        if found - {BIAS}:
            shapes[f"{module}.weight"] = _weight_shape(tensors, module, found - {BIAS})
    return shapes


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError when a tensor holds NaN or infinity, or the product of factors may."""
    broken = [key for key, tensor in tensors.items() if not tensor.float().isfinite().all()]
    if broken:
        raise ValueError(f"{len(broken)} of its {len(tensors)} tensors hold NaN or infinity, such as {broken[0]}")
    for module in {_parts(key)[0] for key in tensors}:
        factors = [
            tensors[f"{module}.{suffix}"]
            for form in WEIGHT_FORMS[1:]
            for suffix in form[:2]
            if f"{module}.{suffix}" in tensors
        ]
        largest = [float(factor.float().abs().max()) for factor in factors]
        if factors and not largest[0] * largest[1] * len(factors[1]) < LARGEST:
            raise ValueError(f"the factors of {module} are so large that their product may be infinite")


def check_fit(changes: Mapping[str, Shape], weights: Mapping[str, Shape]) -> None:
    """Raises ValueError when there is no weight for a change, or it has another shape; both by patch name."""
    missing = sorted(changes.keys() - weights.keys())
    if missing:
        raise ValueError(
            f"this model lacks {len(missing)} of the {len(changes)} weights that it changes, such as {missing[0]}"
        )
    others = sorted(name for name, shape in changes.items() if tuple(weights[name]) != shape)
    if others:
        name = others[0]
        raise ValueError(
            f"{len(others)} of the {len(changes)} weights that it changes have another shape in this model, such as "
            f"{name}: {[*weights[name]]}, the patch has {[*changes[name]]}"
        )


def _parts(key: str) -> tuple[str, str]:
    """A key's module and what is behind it."""
    match = KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"{key[:100]!r} is no tensor of a patch")
    return match[1], match[2]


def _weight_shape(tensors: Mapping[str, Tensor], module: str, found: set[str]) -> Shape:
    """Of the change that the tensors with the suffixes `found` stand for."""
    form = max(WEIGHT_FORMS, key=lambda form: len(found.intersection(form)))
    for what, suffixes in (("lacks", set(form) - found), ("has, beside another change,", found - set(form))):
        if suffixes:
            raise ValueError(f"{module} {what} {', '.join(sorted(suffixes))}")
    if form == ("diff",):
        return tuple(tensors[f"{module}.diff"].shape)
    up, down, *alpha = (tensors[f"{module}.{suffix}"] for suffix in form)
    if down.ndim < 2 or tuple(up.shape[1:]) != (len(down), *[1] * (down.ndim - 2)):
        raise ValueError(f"{module} has factors that do not fit, of shapes {[*up.shape]} and {[*down.shape]}")
    if alpha and alpha[0].ndim:
        raise ValueError(f"{module}.alpha is no scalar, its shape is {[*alpha[0].shape]}")
    return (len(up), *down.shape[1:])
