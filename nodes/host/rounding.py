"""Whether a patch survives the precision that its base is stored in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import comfy.float
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...unlearning_core.changes import some_rows
from ...unlearning_core.digests import inner_tensors
from ...unlearning_core.patch import UnlearningPatch as Patch
from .storage import is_plain
from .weights import original, patch_places, stored

log = logging.getLogger(__name__)
ROWS = 16  # of each changed weight that are looked at
LEAST_KEPT = 0.8
MOST_NOISE = 8.0  # random, so that it averages out in the outputs: there it is a fifth of the patch's effect or so


class Rounding(NamedTuple):
    """What is left of changes that ComfyUI rounds to the precision of the weights."""

    kept: float  # <rounded change, change> / ||change||^2
    noise: float  # ||rounded change - kept * change|| / ||change||
    storage: str  # what it is rounded to

    @property
    def harms(self) -> bool:
        """Whether the user should be told."""
        return self.kept < LEAST_KEPT or self.noise > MOST_NOISE


def rounding_warning(model: ModelPatcher, patch: Patch, strength: float) -> str | None:
    """What rounding leaves of a patch on `model`, when that is not most of it; also in the log."""
    if strength == 0:
        return None
    rounding = after_rounding(model, patch, strength)
    if not rounding.harms:
        return None
    warning = (
        f"The base is stored in {rounding.storage}, whose rounding keeps {rounding.kept:.0%} of this patch and adds "
        f"{rounding.noise:.1f} times its size in noise. Load the base in a higher precision, or train longer or at a "
        "higher learning rate."
    )
    log.warning("Unlearn: %s", warning)
    return warning


@torch.no_grad()
def after_rounding(model: ModelPatcher, patch: Patch, strength: float) -> Rounding:
    """Over some rows of all changed weights, rounded as ComfyUI does when it loads the patched model."""
    places = patch_places(model)
    along = across = size = 0.0
    storage = "float32"
    for name, change in patch.changes(ROWS).items():
        place = places[name]
        weight = stored(model, place.key)
        rounded_rows = rounder(model, place.key, weight)
        if rounded_rows is None:
            continue
        storage = storage_name(weight)
        rows = some_rows(place.of(original(model, place.key)), ROWS).cpu().double()
        scaled = strength * change.double()
        left = rounded_rows((rows + scaled).float()).double() - rows
        along += float((left * scaled).sum())
        across += float(left.square().sum())
        size += float(scaled.square().sum())
    if size == 0:
        return Rounding(1.0, 0.0, storage)
    kept = along / size
    return Rounding(kept, max(0.0, across / size - kept**2) ** 0.5, storage)


def rounder(model: ModelPatcher, key: str, weight: Tensor) -> Callable[[Tensor], Tensor] | None:
    """How ComfyUI rounds rows of a patched weight to its storage; None where the patch stays as it is."""
    module, _, kind = key.rpartition(".")
    seed = comfy.utils.string_to_seed(key)
    if is_plain(weight):
        if weight.dtype == torch.float32:
            return None
        return lambda rows: comfy.float.stochastic_rounding(rows, weight.dtype, seed=seed)
    requantize = getattr(comfy.utils.get_attr(model.model, module), f"set_{kind}", None)
    if requantize is None:  # the loader's module adds patches to what it dequantizes
        return None
    return lambda rows: requantize(rows, seed=seed, return_weight=True).dequantize()


def storage_name(weight: Tensor) -> str:
    """The type of the numbers that a weight is stored in."""
    [numbers, *_] = inner_tensors(weight)
    dtype = str(numbers.dtype).removeprefix("torch.")
    return dtype if is_plain(weight) else f"quantized {dtype}"
