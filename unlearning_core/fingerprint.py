"""Which base a patch belongs to: a sketch of the weights that survives a change of precision."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 0.01  # relative distance of two sketches: bf16 storage makes 0.002, another checkpoint far more


@dataclass(frozen=True)
class Fingerprint:
    """The architecture's hash, and one value from the middle of every weight, in name order."""

    architecture: str  # 16 hexadecimal digits over all names and sizes
    sketch: str  # base64 of little-endian float16
    patched: str = ""  # architecture of what earlier patches changed; empty without any
    patches: str = ""  # sketch of those changes, base64 of little-endian float32

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], changes: Mapping[str, Tensor] | None = None) -> Fingerprint:
        """Of a model's frozen weights, and of what patches add to them, under their patch names."""
        architecture, sketch = _names(weights), _encode(_middles(weights), "<f2")
        if not changes:
            return cls(architecture, sketch)
        return cls(architecture, sketch, _names(changes), _encode(_middles(changes), "<f4"))

    def difference(self, other: Fingerprint) -> str | None:
        """Why `other` is not this base, or None when it is; it may carry patches if this one has none."""
        if self.architecture != other.architecture:
            return "its architecture is another"
        distance = _distance(_decode(self.sketch, "<f2"), _decode(other.sketch, "<f2"))
        if distance > TOLERANCE:
            return f"its weights differ by {distance:.0%}"
        if self.patched and self.patched != other.patched:
            return "patches were on it that are missing here, or are others here"
        if self.patched and _distance(_decode(self.patches, "<f4"), _decode(other.patches, "<f4")) > TOLERANCE:
            return "the patches on it had another strength, or were others"
        return None


def _names(weights: Mapping[str, Tensor]) -> str:
    listing = "\n".join(f"{name} {weights[name].numel()}" for name in sorted(weights))
    return sha256(listing.encode()).hexdigest()[:16]


def _middles(weights: Mapping[str, Tensor]) -> np.ndarray:
    """The middle element of each weight, in name order."""
    flat = [weights[name].flatten() for name in sorted(weights)]
    return torch.stack([values[len(values) // 2].float().cpu() for values in flat]).numpy()


def _encode(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def _decode(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind).astype(np.float32)


def _distance(mine: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(mine - theirs) / np.linalg.norm(mine))
