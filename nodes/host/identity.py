"""What a MODEL is, as a hash: its weights, and everything on it that changes what it predicts."""

from __future__ import annotations

import hashlib
import json
import weakref
from typing import Any
from uuid import uuid4

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import WeightAdapterBase
from torch import Tensor

from ...unlearning_core.digests import digest
from .progress import Interruptible

# What of a ModelPatcher changes its predictions, besides the weights.
TRAITS = (
    "patches",
    "object_patches",
    "model_options",
    "weight_wrapper_patches",
    "hook_patches",
    "wrappers",
    "callbacks",
    "injections",
    "additional_models",
)

_digests: weakref.WeakKeyDictionary[BaseModel, str] = weakref.WeakKeyDictionary()  # an id may be given out again


def model_identity(model: ModelPatcher) -> str:
    """The digest of the weights, and of everything on the MODEL that changes its pictures."""
    sigmas = digest({"sigmas": model.get_model_object("model_sampling").sigmas})
    content = json.dumps([weights_digest(model), sigmas, traits(model)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def prediction_identity(model: ModelPatcher, private: ModelPatcher) -> str:
    """As `model_identity`, with the precision and device that the copy `private` predicts in."""
    surroundings = f"{private.model.get_dtype_inference()} {private.load_device} {private.model.model_type}"
    return f"{model_identity(model)} {surroundings}"


def weights_digest(model: ModelPatcher) -> str:
    """The weights without the patches on them: clones of one model share them, and their digest."""
    if model.model not in _digests:
        originals = Interruptible((key, entry[0][0]) for key, entry in model.get_key_patches().items())
        _digests[model.model] = digest(originals)
    return _digests[model.model]


def traits(model: ModelPatcher) -> dict[str, Any]:
    """Everything on a MODEL besides its weights that changes pictures."""
    return {name: described_value(getattr(model, name)) for name in TRAITS}


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
