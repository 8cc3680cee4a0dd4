"""The bank of an unchanged run is not sampled again, and that of a changed MODEL is."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

Pack = Callable[[str], ModuleType]


def test_identity_knows_every_change_of_a_model(pack: Pack, model: Any) -> None:
    identity = pack("nodes.host.identity").model_identity
    base = identity(model)
    assert identity(model.clone()) == base
    key = next(key for key in model.model_state_dict() if key.endswith("to_k.weight"))
    change = ("diff", (torch.ones_like(model.model_state_dict()[key]),))

    def patched(strength: float) -> Any:
        other = model.clone()
        other.add_patches({key: change}, strength)
        return other

    def option() -> Any:
        other = model.clone()
        other.set_model_sampler_cfg_function(lambda args: args["cond"])
        return other

    def sampling() -> Any:
        other = model.clone()
        other.add_object_patch("model_sampling", model.get_model_object("model_sampling"))
        return other

    assert identity(patched(1.0)) == identity(patched(1.0))
    assert len({base, *map(identity, (patched(1.0), patched(0.5), option(), sampling()))}) == 5


def test_a_digest_does_not_outlive_its_network(pack: Pack, model: Any) -> None:
    """Another network may get its id."""
    digests = pack("nodes.host.identity")._digests
    with torch.inference_mode(False), pack("nodes.host.private").private_copy(model) as private:
        pack("nodes.host.identity").model_identity(private)
        assert private.model in digests
    count = len(digests)
    network = private.model
    del private
    pack("nodes.host.private").comfy.model_management.cleanup_models_gc()
    del network
    import gc

    gc.collect()
    assert len(digests) == count - 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 8, 8), "forget latents: their shape is .* have 4 channels in 4 dimensions"),
        ((1, 4, 8), "forget latents: their shape is"),
        ((1, 4, 1, 8, 8), "forget latents: their shape is"),
        ((0, 4, 8, 8), "forget latents: their shape is"),
        ((1, 4, 8, 8), "forget latents: there are NaN or infinite values"),
        ((2, 4, 8, 8), "forget latents: there are NaN"),
    ],
)
def test_latents_that_do_not_fit_are_refused_before_anything_runs(
    pack: Pack, model: Any, clip: Any, shape: tuple[int, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = pack("nodes.unlearn").UnlearnConcept
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="1"), raising=False)
    monkeypatch.setattr(pack("nodes.host.unlearning"), "private_copy", None)  # what would begin the work
    latents = {"samples": torch.full(shape, float("nan"))}
    inputs = {"forget_prompts": "a cat", "overwrite_prompt": "", "retain_prompts": "a car", "weights": "all"}
    size = {"width": 64, "height": 64}
    with pytest.raises(ValueError, match=message):
        node.execute(model, clip, {"method": "ovw"}, **inputs, **size, forget_latents=latents)
    with pytest.raises(ValueError, match="width: 66 pixels; this model draws sides that are multiples of 8"):
        node.execute(model, clip, {"method": "ovw"}, **inputs, width=66, height=64)
