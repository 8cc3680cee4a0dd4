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
            tensor = part[name].detach().cpu().contiguous()
            sha.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
            flat = tensor.as_strided((tensor.numel(),), (1,))  # a single number may have any stride
            sha.update(flat.view(torch.uint8).numpy().data)
        sha.update(b"\n")
    return sha.hexdigest()


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor in nested lists and dictionaries, under its place."""
    if isinstance(value, Tensor):
        return {name: value}
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {place: tensor for key, entry in entries for place, tensor in tensors(entry, f"{name}.{key}").items()}
