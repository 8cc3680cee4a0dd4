"""Which base a patch belongs to: a sketch of the weights that survives a change of precision."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PLAIN_BITS = 16  # of a stored number that shares a scale with no others, or more

# Bits of the coarser of two storages, or more -> relative distance of their sketches at most. bf16 makes 0.002, blocks
# with a scale of their own what their bits leave, and another checkpoint far more.
TOLERANCES = {PLAIN_BITS: 0.01, 8: 0.06, 4: 0.2, 0: 0.5}
TOLERANCE = TOLERANCES[PLAIN_BITS]
EACH = 0.01  # of a value, in which plain storage may differ: bf16 rounds by 0.004
SMALLEST = 1e-6  # what fp16 rounds values near 0 by
HALFWAY = 0.02  # share of values that lie so that another path to fp8 rounds them the other way

ROUNDING = 1e-6  # of a weight's largest element, up to which a change is none
DIRECTIONS = 4  # of a change, along which its size is kept

HASH = re.compile(r"[0-9a-f]{16}")
ROUNDINGS = (torch.float8_e4m3fn, torch.float8_e5m2)  # plain storage whose rounding TOLERANCE does not cover


@dataclass(frozen=True)
class Fingerprint:
    """The architecture's hash, and one value from the middle of every weight, in name order."""

    architecture: str  # 16 hexadecimal digits over all names and sizes
    sketch: str  # base64 of little-endian float16: the checkpoint's own weights
    patched: str = ""  # architecture of what earlier patches changed; empty without any
    patches: str = ""  # sketch of those changes, base64 of little-endian float32
    directions: str = ""  # the same of their size along random directions; empty in files from before it
    effective: str = ""  # as `sketch`, of the weights with those changes; empty without any
    prediction: str = ""  # what the model predicts, such as "epsilon"; empty when unknown
    bits: int = PLAIN_BITS  # a stored number takes, where the checkpoint is quantized in blocks

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        weights: Mapping[str, Tensor],
        changes: Mapping[str, Tensor] | None = None,
        prediction: str = "",
        bits: int = PLAIN_BITS,
    ) -> Fingerprint:
        """Of a checkpoint's weights and of what patches add to them and to others, under their patch names.

        Tensors are asked for one at a time, so both may be computed on the way.
        """
        names, sizes, values = _sketched(weights, lambda name, weight: _middle(weight))
        bare = cls(_hash(sizes), _encode(values, "<f2"), prediction=prediction, bits=bits)

        def of_change(name: str, change: Tensor) -> Tensor | None:
            if name in weights and change.abs().max() <= ROUNDING * weights[name].abs().max():
                return None  # as when a model is merged with itself
            return torch.cat([_middle(change), _along(change)])

        changed, sizes, sketched = _sketched(changes or {}, of_change)
        if not changed:
            return bare
        added, directions = np.split(sketched.reshape(-1, 1 + DIRECTIONS), [1], axis=1)
        effective = values.copy()
        effective[np.isin(names, changed)] += added[np.isin(changed, names), 0]
        return replace(
            bare,
            patched=_hash(sizes),
            patches=_encode(added, "<f4"),
            directions=_encode(directions, "<f4"),
            effective=_encode(effective, "<f2"),
        )

    def check(self) -> None:
        """Raises ValueError, which names the field, when it cannot be that of a model."""
        for name, text in (("architecture", self.architecture), ("patched", self.patched)):
            if not HASH.fullmatch(text) and (text or name == "architecture"):
                raise ValueError(f"base.{name} is {text[:20]!r}, not 16 hexadecimal digits")
        if bool(self.patched) != bool(self.patches):
            raise ValueError("base.patched and base.patches do not belong together")
        for name, text, kind in (
            ("sketch", self.sketch, "<f2"),
            ("patches", self.patches, "<f4"),
            ("directions", self.directions, "<f4"),
            ("effective", self.effective, "<f2"),
        ):
            try:
                values = _decode(text, kind)
            except ValueError as error:
                raise ValueError(f"base.{name} is no sketch of weights ({error})") from error
            if not np.isfinite(values).all() or (name == "sketch" and not len(values)):
                raise ValueError(f"base.{name} holds no values, NaN or infinity")
        if self.effective and len(self.effective) != len(self.sketch):
            raise ValueError("base.effective and base.sketch are not of one model")
        if self.bits < 1:
            raise ValueError(f"base.bits is {self.bits}, not a number above 0")

    def difference(self, other: Fingerprint) -> str | None:
        """Why `other` is not this base, or None when it is.

        `other` may carry patches if this one has none. Patches on one of them may be in the other's checkpoint.
        """
        if (self.architecture, len(self.sketch)) != (other.architecture, len(other.sketch)):
            return "its architecture is another"
        if self.prediction and other.prediction and self.prediction != other.prediction:
            return f"it predicted {self.prediction}, this one predicts {other.prediction}"
        bits = min(self.bits, other.bits)
        mine, theirs = _decode(self.sketch, "<f2"), _decode(other.sketch, "<f2")
        same = _same(mine, theirs, bits)
        if same and not self.patched:
            return None
        if same and other.patched:
            return self._difference_of_patches(other)
        if self._predicts_as(other, bits):
            return None
        if same:
            return "patches were on it that are missing here"
        return f"its weights differ by {max(_distance(mine, theirs), 0.01):.0%}"

    def _difference_of_patches(self, other: Fingerprint) -> str | None:
        if (self.patched, len(self.patches)) != (other.patched, len(other.patches)):
            return "patches were on it that are missing here, or are others here"
        sketches = (self.patches, other.patches)
        if len(self.directions) == len(other.directions) > 0:
            sketches = (self.directions, other.directions)
        mine, theirs = (_decode(sketch, "<f4") for sketch in sketches)
        if _distance(mine, theirs) > TOLERANCE:
            return "the patches on it had another strength, or were others"
        return None

    def _predicts_as(self, other: Fingerprint, bits: int) -> bool:
        """Whether patches make the weights alike, where the checkpoints' own are not."""
        if self.patched and not self.effective:  # a file of format 1
            return False
        mine, theirs = (_decode(one.effective or one.sketch, "<f2") for one in (self, other))
        apart = float(np.linalg.norm(mine - theirs))
        unpatched = float(np.linalg.norm(_decode(self.sketch, "<f2") - _decode(other.sketch, "<f2")))
        return _same(mine, theirs, bits) and 2 * apart <= unpatched > 0


def architecture(weights: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits over all names and sizes."""
    return _hash({name: weight.numel() for name, weight in weights.items()})


def _sketched(
    weights: Mapping[str, Tensor], sketch: Callable[[str, Tensor], Tensor | None]
) -> tuple[list[str], dict[str, int], NDArray[np.float32]]:
    """Names in order, their numbers of elements, and one after the other what `sketch` makes of each, if anything."""
    sizes, sketches = {}, [torch.zeros(0)]
    for name in sorted(weights):
        weight = weights[name]
        made = sketch(name, weight)
        if made is not None:
            sizes[name] = weight.numel()
            sketches.append(made.float().cpu())
    return list(sizes), sizes, torch.cat(sketches).numpy()


def _middle(weight: Tensor) -> Tensor:
    """One element [1]."""
    return weight.flatten()[weight.numel() // 2].reshape(1)


def _along(change: Tensor) -> Tensor:
    """[DIRECTIONS], of which no change but zero is zero: its products with matrices of rank 1."""
    matrix = change.float().reshape(len(change), -1)
    # One generator for both, so that they differ in square matrices.
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(size, DIRECTIONS, generator=generator).to(matrix) for size in matrix.shape)
    return (rows * (matrix @ columns)).sum(dim=0)


def _hash(sizes: Mapping[str, int]) -> str:
    listing = "\n".join(f"{name} {sizes[name]}" for name in sorted(sizes))
    return sha256(listing.encode()).hexdigest()[:16]


def _encode(values: NDArray[np.float32], kind: str) -> str:
    largest = np.finfo(kind).max  # NaN and infinity are for what a file holds, not for what fp16 cannot
    return base64.b64encode(values.clip(-largest, largest).astype(kind).tobytes()).decode()


def _decode(text: str, kind: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text, validate=True), kind).astype(np.float32)


def _same(mine: NDArray[np.float32], theirs: NDArray[np.float32], bits: int) -> bool:
    """Whether two sketches are of one checkpoint, stored in two ways.

    All together, and each alone: a change of a few small layers is lost in the norm of all.
    """
    if _distance(mine, theirs) > next(most for least, most in TOLERANCES.items() if bits >= least):
        return False
    if bits < PLAIN_BITS:
        return True
    gap = _gap(mine, theirs)
    rounded = np.any((gap == 0) & (mine != theirs))
    others = np.abs(gap) > EACH * np.maximum(np.abs(mine), np.abs(theirs)) + SMALLEST
    return float(others.mean()) <= (HALFWAY if rounded else 0)


def _distance(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Relative to mine."""
    gap = _gap(mine, theirs)
    if not gap.any():  # also when there is nothing to be relative to
        return 0.0
    return float(np.linalg.norm(gap) / max(np.linalg.norm(mine), np.finfo(np.float32).tiny))


def _gap(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The difference, where one is not the other one rounded to fp8."""
    gap = mine - theirs
    for kind in ROUNDINGS:
        gap[(_rounded(mine, kind) == theirs) | (_rounded(theirs, kind) == mine)] = 0
    return gap


def _rounded(values: NDArray[np.float32], kind: torch.dtype) -> NDArray[np.float32]:
    return torch.from_numpy(values).to(kind).float().numpy()
