"""The names that patches use for a MODEL's weights, and where in ComfyUI's networks those weights are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import comfy.lora
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...unlearning_core.names import TRANSFORMER, unet_name


class Place(NamedTuple):
    """A weight or a part of one, as ComfyUI's LoRA targets describe it."""

    key: str  # in the state dict
    part: tuple[int, int, int] | None = None  # dimension, start and length: one of several that ComfyUI fuses
    reorder: Callable[[Tensor], Tensor] | None = None  # to ComfyUI's order and back, where diffusers has another

    def of(self, weight: Tensor) -> Tensor:
        """This part of the whole weight, in diffusers' order."""
        part = weight.narrow(*self.part) if self.part else weight
        return self.reorder(part) if self.reorder else part

    def apply(self, change: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
        """The whole weight with this part changed."""
        changed = change(self.of(weight))
        if self.reorder:
            changed = self.reorder(changed)
        if self.part is None:
            return changed
        dimension, start, length = self.part
        end = weight.shape[dimension] - start - length
        before, _, after = weight.split([start, length, end], dimension)
        return torch.cat([before, changed, after], dimension)


def patch_places(model: ModelPatcher) -> dict[str, Place]:
    """Patch name -> place of every weight that a patch may change.

    U-Nets and transformers use diffusers' module names, as LoRA files do, other families ComfyUI's generic ones. Of
    transformers a patch changes the matrices: LoRA loaders do not reach the biases that ComfyUI fuses.
    """
    keys = [key for key in model.model_state_dict("diffusion_model.") if _can_change(model, key)]
    # Of several names the first in the alphabet: U-Nets call label_emb add_embedding, but for the rare unCLIP.
    unet = {f"diffusion_model.{key}": name for name, key in sorted(_unet_names(model).items(), reverse=True)}
    if unet:
        return {unet_name(unet[key]): Place(key) for key in keys if key in unet}
    fused = _transformer_places(model)
    if fused:
        known = set(keys)
        return {name: place for name, place in fused.items() if place.key in known}
    return {key: Place(key) for key in keys}


def patch_changes(model: ModelPatcher) -> dict[str, Tensor]:
    """What the patches on a MODEL add to the weights of `base_weights`, in fp32 on the CPU."""
    originals = model.get_key_patches("diffusion_model.")
    whole = {
        key: comfy.lora.calculate_weight(patches, torch.zeros(originals[key][0][0].shape), key)
        for key, patches in model.patches.items()
        if key in originals
    }
    return {name: place.of(whole[place.key]) for name, place in patch_places(model).items() if place.key in whole}


def base_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """The checkpoint's own weights under their patch names, whatever patches the MODEL carries."""
    originals = model.get_key_patches("diffusion_model.")
    return {name: place.of(originals[place.key][0][0]) for name, place in patch_places(model).items()}


def weight_shapes(model: ModelPatcher) -> dict[str, tuple[int, ...]]:
    """The shape of every weight that a patch may change, under its patch name; however the weight is stored."""
    stored = {key: weight.shape for key, weight in model.model_state_dict("diffusion_model.").items()}
    shapes = {}
    for name, place in patch_places(model).items():
        module, _, kind = place.key.rpartition(".")
        owner = comfy.utils.get_attr(model.model, module)
        shape = stored[place.key]
        # A quantized matrix may lie packed, but its layer knows the sides.
        if kind == "weight" and len(shape) == 2 and hasattr(owner, "in_features"):
            shape = (owner.out_features, owner.in_features)
        shapes[name] = tuple(place.of(torch.empty(shape, device="meta")).shape)
    return shapes


def _can_change(model: ModelPatcher, key: str) -> bool:
    """Whether ComfyUI applies functions to this weight, as training does."""
    module, _, kind = key.rpartition(".")
    return kind in ("weight", "bias") and hasattr(comfy.utils.get_attr(model.model, module), f"{kind}_function")


def _unet_names(model: ModelPatcher) -> dict[str, str]:
    names: dict[str, str] = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return names


def _transformer_places(model: ModelPatcher) -> dict[str, Place]:
    """The matrices of a transformer by the names of diffusers' LoRA files.

    ComfyUI lists several names for some weights. The first one counts, and the parts of a fused weight before the
    whole.
    """
    targets = {
        name: Place(target) if isinstance(target, str) else Place(*target)
        for name, target in comfy.lora.model_lora_keys_unet(model.model, {}).items()
        if name.startswith(TRANSFORMER)
    }
    shapes = {key: weight.shape for key, weight in model.model_state_dict("diffusion_model.").items()}
    fused = {place.key for place in targets.values() if place.part}
    names: dict[tuple[str, tuple[int, int, int] | None], str] = {}
    for name, place in targets.items():
        if len(shapes.get(place.key, ())) >= 2 and (place.part or place.key not in fused):
            names.setdefault((place.key, place.part), name)
    return {f"{name}.weight": targets[name] for name in names.values()}
