"""What a MODEL carries beside its weights."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any
from uuid import uuid4

import comfy.model_sampling
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor, nn

from ...unlearning_core.digests import digest
from ...unlearning_core.fingerprint import Fingerprint
from .clones import undisturbed
from .storage import is_plain, storage_bits
from .weights import all_changes, base_weights, converter, layer_weights

# Of a ModelPatcher: what acts on its predictions from beside the weights.
BESIDE = (
    "weight_wrapper_patches",
    "hook_patches",
    "forced_hooks",
    "wrappers",
    "callbacks",
    "injections",
    "additional_models",
)

# Object patches that training follows: how the network is sampled, in which precision, and the scale of its latents.
FOLLOWED = ("model_sampling", "latent_format", "manual_cast_dtype")

# All that changes its pictures, besides the weights.
TRAITS = ("patches", "object_patches", "model_options", *BESIDE)

# Options that act after the prediction: on how a sampler joins predictions, and on masks. Training uses neither.
AFTER = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "disable_cfg1_optimization",
    "denoise_mask_function",
)

PREDICTIONS = {
    comfy.model_sampling.EPS: "epsilon",
    comfy.model_sampling.V_PREDICTION: "v_prediction",
    comfy.model_sampling.CONST: "flow_prediction",
}  # ComfyUI's class -> diffusers' word


def check_base(model: ModelPatcher) -> None:
    """Raises ValueError, which names it, for anything on a MODEL that a patch could not take into account.

    Patches of weights, model sampling and what acts after the prediction are fine.
    """
    found = next(acting_beside(model), None)
    if found:
        raise ValueError(
            f"model: it carries {found}, which acts beside the weights, so that a patch cannot take it into account; "
            "connect the node that adds it behind Unlearn Concept, not before; a network that comes with it cannot be "
            "trained"
        )
    for key, weight in layer_weights(model).items():
        if not is_plain(weight) and not converter(model, key):
            raise ValueError(
                f"model: its loader stores {key} as {type(weight).__name__}, {weight.dtype}, which cannot be trained; "
                "load the model as fp16, bf16 or fp8 with a stock loader"
            )


def acting_beside(model: ModelPatcher) -> Iterator[str]:
    """Names of what shapes a MODEL's prediction, but is neither weights nor model sampling."""
    for trait in BESIDE:
        for name in leaves(getattr(model, trait)):
            yield f"{trait}: {name}"
    for option, value in model.model_options.items():
        if option not in AFTER:
            for name in leaves(value):
                yield f"{option}: {name}"
    for place in model.object_patches:
        if place not in FOLLOWED:
            yield f"an object patch of {place}"
    yield from replaced(model)


def replaced(model: ModelPatcher) -> Iterator[str]:
    """Names of what was put in the place of the network's own functions, or beside them."""
    modules = set(model.model.modules())
    for place, module in model.model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if not all(_is_method(hook, modules) for hook in hooks):
            yield f"a hook on {place}"
        for name, value in vars(module).items():
            # Its own one is there too, once a LoRA put back what it had replaced.
            if callable(getattr(type(module), name, None)) and callable(value) and not _is_method(value, [module]):
                yield f"another {name} of {place or 'the model'}"


def _is_method(function: Any, modules: Container[nn.Module]) -> bool:
    """Whether it is a method of one of these modules, as its class has it: then a copy of the network has its own."""
    owner = getattr(function, "__self__", None)
    return owner in modules and getattr(type(owner), function.__name__, None) is function.__func__


def leaves(value: Any, name: str = "") -> Iterator[str]:
    """What nested containers hold, in words; nothing for empty ones and for None."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from leaves(entry, str(key))
    elif isinstance(value, list | tuple | set):
        for entry in value:
            yield from leaves(entry, name)
    elif value is not None:
        kind = getattr(value, "__qualname__", type(value).__name__)
        yield f"{name} ({kind})" if name else kind


def prediction_type(model: ModelPatcher) -> str:
    """What the network predicts, in diffusers' words where it has one."""
    sampling = type(model.get_model_object("model_sampling"))
    known = [kind for kind in sampling.__mro__ if kind.__module__ == comfy.model_sampling.__name__]
    own = next((kind for kind in known if "calculate_denoised" in vars(kind)), sampling)
    return PREDICTIONS.get(own, own.__name__)


def fingerprint(model: ModelPatcher) -> Fingerprint:
    """Of the checkpoint, the patches on the MODEL and what it predicts.

    Raises ValueError when a weight cannot be read, or a patch gives one another shape.
    """
    with undisturbed(model):
        stored = layer_weights(model).values()
        return Fingerprint.of(
            base_weights(model),
            all_changes(model),
            prediction=prediction_type(model),
            bits=min(storage_bits(weight) for weight in stored),
        )


def traits(model: ModelPatcher) -> dict[str, Any]:
    """Everything on a MODEL besides its weights that changes pictures."""
    described = {name: described_value(getattr(model, name)) for name in TRAITS}
    return {**described, "replaced": [described_value(replaced) for _ in replaced(model)]}


def described_value(value: Any) -> Any:
    """JSON that is equal for equal values. What has no content to compare, such as a function, is never equal."""
    if isinstance(value, Tensor):
        return digest({"": value})
    if isinstance(value, WeightAdapterBase):
        return [type(value).__name__, described_value(value.weights)]
    if isinstance(value, dict):
        return {str(key): described_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [described_value(entry) for entry in value]
    if isinstance(value, str | int | float | None):
        return value
    return uuid4().hex
