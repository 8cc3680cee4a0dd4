"""The names that patches use for a MODEL's weights, and where in ComfyUI's networks those weights are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import comfy.lora
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
from torch import Tensor

from ...unlearning_core.names import TRANSFORMER, unet_name
from .progress import end_if_cancelled
from .storage import is_ordinary, is_plain, read_by_module

NETWORK = "diffusion_model."  # what keys of the denoiser begin with


class Computed(Mapping[str, Tensor]):
    """Tensors that are made when they are asked for, so that those of a whole model are never in memory at once.

    None is made when the user has cancelled the run.
    """

    def __init__(self, names: Iterable[str], compute: Callable[[str], Tensor]) -> None:
        self._names = dict.fromkeys(names)
        self._compute = compute

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        end_if_cancelled()
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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
    keys = [key for key in stored_weights(model, NETWORK) if _can_change(model, key)]
    # Of several names the first in the alphabet: U-Nets call label_emb add_embedding, but for the rare unCLIP.
    unet = {f"{NETWORK}{key}": name for name, key in sorted(_unet_names(model).items(), reverse=True)}
    if unet:
        return {unet_name(unet[key]): Place(key) for key in keys if key in unet}
    return _transformer_places(model) or {key: Place(key) for key in keys}


def base_weights(model: ModelPatcher) -> Mapping[str, Tensor]:
    """The checkpoint's own weights under their patch names, whatever patches the MODEL carries.

    Reading one raises ValueError when its loader stores it in a way that nothing here can read.
    """
    places = patch_places(model)

    @lru_cache(maxsize=1)  # the parts of a fused weight follow one another
    def whole(key: str) -> Tensor:
        return original(model, key)

    return Computed(places, lambda name: places[name].of(whole(places[name].key)))


def patch_changes(model: ModelPatcher) -> Mapping[str, Tensor]:
    """What the patches on a MODEL add to the weights of `base_weights`, in fp32: patched minus unpatched.

    Reading one raises ValueError as `base_weights`, or when a patch gives the weight another shape.
    """
    return _changes(model, {name: place for name, place in patch_places(model).items() if place.key in model.patches})


def all_changes(model: ModelPatcher) -> Mapping[str, Tensor]:
    """As `patch_changes`, beside them of the weights that no patch of ours may change, such as FLUX' biases."""
    places = {name: place for name, place in patch_places(model).items() if place.key in model.patches}
    others = model.patches.keys() - {place.key for place in places.values()}
    return _changes(model, places | {key: Place(key) for key in others if key.startswith(NETWORK)})


def _changes(model: ModelPatcher, places: Mapping[str, Place]) -> Mapping[str, Tensor]:
    @lru_cache(maxsize=1)
    def whole(key: str) -> Tensor:
        return patch_change(model, key)

    return Computed(places, lambda name: places[name].of(whole(places[name].key)))


def effective_weights(model: ModelPatcher) -> Mapping[str, Tensor]:
    """The weights of a MODEL with the patches on it, in fp32 where it has some, under their patch names.

    Reading one raises ValueError as `base_weights` and `patch_changes`.
    """
    base, changes = base_weights(model), patch_changes(model)
    return Computed(base, lambda name: base[name].float() + changes[name] if name in changes else base[name])


@torch.no_grad()
def patch_change(model: ModelPatcher, key: str) -> Tensor:
    """What the patches on a MODEL add to one weight, in fp32. Raises ValueError as `patch_changes`."""
    weight = original(model, key).float()
    # Merges and DoRA depend on the weight, so their change is no sum of their parts.
    patched = comfy.lora.calculate_weight(model.patches[key], weight.clone(), key)
    if patched.shape != weight.shape:
        raise ValueError(
            f"model: a patch on it changes the shape of {key} from {[*weight.shape]} to {[*patched.shape]}; "
            "load a base that has this shape by itself"
        )
    return patched - weight


def original(model: ModelPatcher, key: str) -> Tensor:
    """A weight of the checkpoint as an ordinary tensor, dequantized by the module that owns it.

    Raises ValueError when its loader stores it in a way that nothing here can read.
    """
    module, _, kind = key.rpartition(".")
    weight = stored(model, key)
    convert = converter(model, key)
    given = convert(weight) if convert else weight
    plain = given if is_plain(given) else read_by_module(comfy.utils.get_attr(model.model, module), kind, weight)
    if plain is None:
        raise ValueError(
            f"model: its loader stores {key} as {type(weight).__name__}, which cannot be read; "
            "load the model as fp16, bf16 or fp8 with a stock loader"
        )
    return plain


def converter(model: ModelPatcher, key: str) -> Callable[[Tensor], Tensor] | None:
    """What makes an ordinary tensor of a stored weight, where the module that owns it has that."""
    convert: Callable[[Tensor], Tensor] | None = get_key_weight(model.model, key)[2]
    return convert


def stored(model: ModelPatcher, key: str) -> Tensor:
    """A weight of the checkpoint in the form that its loader gave it; patches and hooks may be applied to it now."""
    if key in model.backup:
        return model.backup[key].weight
    if key in model.hook_backup:
        return model.hook_backup[key][0]
    weight: Tensor = comfy.utils.get_attr(model.model, key)
    return weight


def stored_weights(model: ModelPatcher, prefix: str = "") -> dict[str, Tensor]:
    """`stored` of every parameter of the network by key; state dicts of quantized modules list more than they have.

    A module that is in several places has the name of the first, as where ComfyUI applies patches.
    """
    modules = model.model.named_modules()
    own = (module.named_parameters(place, recurse=False, remove_duplicate=False) for place, module in modules)
    keys = [key for parameters in own for key, _ in parameters]
    return {key: stored(model, key) for key in keys if key.startswith(prefix)}


def layer_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """`stored_weights` of the denoiser, without what is no layer's weight and was never a fraction, as a table."""
    return {
        key: weight
        for key, weight in stored_weights(model, NETWORK).items()
        if key.endswith((".weight", ".bias")) or not is_ordinary(weight) or weight.is_floating_point()
    }


def weight_shapes(model: ModelPatcher) -> dict[str, tuple[int, ...]]:
    """The shape of every weight that a patch may change, under all its patch names, however the weight is stored."""
    weights = stored_weights(model, NETWORK)
    shapes = {key: torch.empty(weight.shape, device="meta") for key, weight in weights.items()}
    places = patch_places(model)
    ours = {place[:2] for place in places.values()}
    places |= {name: place for name, place in _listed(model).items() if place[:2] in ours}
    return {name: tuple(place.of(shapes[place.key]).shape) for name, place in places.items()}


def _can_change(model: ModelPatcher, key: str) -> bool:
    """Whether ComfyUI applies functions to this weight, as training does."""
    module, _, kind = key.rpartition(".")
    return kind in ("weight", "bias") and hasattr(comfy.utils.get_attr(model.model, module), f"{kind}_function")


def _unet_names(model: ModelPatcher) -> dict[str, str]:
    names: dict[str, str] = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    return names


def _transformer_places(model: ModelPatcher) -> dict[str, Place]:
    """The matrices of a transformer by the names of diffusers' LoRA files, empty for a family that has none.

    ComfyUI lists several names for some weights. The parts of a fused weight count before the whole, where they are all
    of it, and of other names the first; but the last where parts do not fit, since ComfyUI lists FLUX.1's names before
    those of Flux.2. Matrices without such names have ComfyUI's generic one.
    """
    targets = _listed(model)
    if not targets:
        return {}
    weights = stored_weights(model, NETWORK)
    matrices = {key: weight.shape for key, weight in weights.items() if weight.ndim >= 2 and _can_change(model, key)}
    listed = {name: place for name, place in targets.items() if place.key in matrices}
    parts: dict[str, set[tuple[int, int, int]]] = {}
    for place in listed.values():
        if place.part:
            parts.setdefault(place.key, set()).add(place.part)
    whole = {key for key, own in parts.items() if not _fit(own, matrices[key])}
    names: dict[tuple[str, tuple[int, int, int] | None], str] = {}
    for name, place in listed.items():
        if (place.part is None) != (place.key in whole or place.key not in parts):
            continue
        if whole or place[:2] not in names:
            names[place[:2]] = name
    named = {name: targets[name] for name in names.values()}
    covered = {place.key for place in named.values()}
    return {**named, **{key: Place(key) for key in matrices if key not in covered}}


def _listed(model: ModelPatcher) -> dict[str, Place]:
    """The weights that ComfyUI's LoRA loader knows by diffusers' names, under these."""
    return {
        f"{name}.weight": Place(target) if isinstance(target, str) else Place(*target)
        for name, target in comfy.lora.model_lora_keys_unet(model.model, {}).items()
        if name.startswith(TRANSFORMER)
    }


def _fit(parts: Iterable[tuple[int, int, int]], shape: torch.Size) -> bool:
    """Whether parts, of one dimension, lie side by side in a weight of this shape, and are all of it."""
    ordered = sorted(parts)
    ends = [0, *(start + length for _, start, length in ordered)]
    starts = [start for _, start, _ in ordered]
    return [*starts, shape[ordered[0][0]]] == ends
