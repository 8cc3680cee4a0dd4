"""Whether a patch survives the precision that its base is stored in."""

from __future__ import annotations

import logging
from typing import NamedTuple

import comfy.float
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ...unlearning_core.changes import some_rows
from ...unlearning_core.patch import UnlearningPatch as Patch
from .weights import patch_places

log = logging.getLogger(__name__)
ROWS = 16  # of each changed weight that are looked at
LEAST_KEPT = 0.8
MOST_NOISE = 8.0  # random, so that it averages out in the outputs: there it is a fifth of the patch's effect or so


class Rounding(NamedTuple):
    """What is left of changes that ComfyUI rounds to the precision of the weights."""

    kept: float  # <rounded change, change> / ||change||^2
    noise: float  # ||rounded change - kept * change|| / ||change||

    @property
    def harms(self) -> bool:
        """Whether the user should be told."""
        return self.kept < LEAST_KEPT or self.noise > MOST_NOISE


def rounding_warning(model: ModelPatcher, patch: Patch, strength: float) -> str | None:
    """What rounding leaves of a patch on `model`, when that is not most of it; also in the log."""
    if strength == 0 or model.model_dtype() == torch.float32:
        return None
    rounding = after_rounding(model, patch, strength)
    if not rounding.harms:
        return None
    warning = (
        f"The base is stored in {str(model.model_dtype()).removeprefix('torch.')}, whose rounding keeps "
        f"{rounding.kept:.0%} of this patch and adds {rounding.noise:.1f} times its size in noise. Load the base in a "
        "higher precision, or train longer or at a higher learning rate."
    )
    log.warning("Unlearn: %s", warning)
    return warning


@torch.no_grad()
def after_rounding(model: ModelPatcher, patch: Patch, strength: float) -> Rounding:
    """Over some rows of all changed weights, rounded as ComfyUI does when it loads the patched model."""
    places, originals = patch_places(model), model.get_key_patches("diffusion_model.")
    along = across = size = 0.0
    for name, change in patch.changes(ROWS).items():
        place = places[name]
        stored = some_rows(place.of(originals[place.key][0][0]), ROWS).cpu()
        if stored.dtype == torch.float32:
            continue
        scaled = strength * change.double()
        wanted = (stored.double() + scaled).float()
        rounded = comfy.float.stochastic_rounding(wanted, stored.dtype, seed=comfy.utils.string_to_seed(place.key))
        left = rounded.double() - stored.double()
        along += float((left * scaled).sum())
        across += float(left.square().sum())
        size += float(scaled.square().sum())
    if size == 0:
        return Rounding(1.0, 0.0)
    kept = along / size
    return Rounding(kept, max(0.0, across / size - kept**2) ** 0.5)
