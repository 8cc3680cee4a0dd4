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

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Fingerprint:
        """Of a model's frozen weights under their patch names."""
        names = sorted(weights)
        listing = "\n".join(f"{name} {weights[name].numel()}" for name in names)
        middles = torch.stack([weights[name].flatten()[weights[name].numel() // 2].float().cpu() for name in names])
        sketch = base64.b64encode(middles.numpy().astype("<f2").tobytes()).decode()
        return cls(sha256(listing.encode()).hexdigest()[:16], sketch)

    def difference(self, other: Fingerprint) -> str | None:
        """Why the two are not the same base, or None when they are."""
        if self.architecture != other.architecture:
            return "its architecture is another"
        mine, theirs = self._values(), other._values()
        distance = np.linalg.norm(mine - theirs) / np.linalg.norm(mine)
        return f"its weights differ by {distance:.0%}" if distance > TOLERANCE else None

    def _values(self) -> np.ndarray:
        return np.frombuffer(base64.b64decode(self.sketch), "<f2").astype(np.float32)
