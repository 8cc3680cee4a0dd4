"""Tensors wherever they are, and what they hold as a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(*parts: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes of tensors: the weights part of a cache key."""
    sha = hashlib.sha256()
    for part in parts:
        for name in sorted(part):
            for tensor in inner_tensors(part[name]):
                sha.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
                sha.update(content(tensor))
        sha.update(b"\n")
    return sha.hexdigest()


def inner_tensors(tensor: Tensor) -> list[Tensor]:
    """The ordinary tensors that a tensor of another class, such as a quantized one, is made of; or itself alone."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in inner_tensors(getattr(tensor, name))]
    return [tensor.detach().as_subclass(Tensor)]


def content(tensor: Tensor) -> memoryview:
    """An ordinary tensor's bytes, of any type, in row-major order."""
    own = tensor.detach().cpu().contiguous()
    flat = own.as_strided((own.numel(),), (1,))  # a single number may have any stride
    return flat.view(torch.uint8).numpy().data


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor in nested lists and dictionaries, under its place."""
    if isinstance(value, Tensor):
        return {name: value}
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {place: tensor for key, entry in entries for place, tensor in tensors(entry, f"{name}.{key}").items()}
