"""What a MODEL is, as a hash: its weights, and everything on it that changes what it predicts."""

from __future__ import annotations

import hashlib
import json
import weakref

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher

from ...unlearning_core.digests import digest
from .clones import undisturbed
from .progress import Interruptible
from .traits import traits
from .weights import stored_weights

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
        with undisturbed(model):
            _digests[model.model] = digest(Interruptible(stored_weights(model)))
    return _digests[model.model]
