"""What a MODEL is when it reaches Unlearn Concept: all of it is the base, or it is refused by name."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from on_models import (
    BESIDE,
    SAMPLED,
    WAYS,
    Pack,
    checkpoint_beside,
    dora,
    drawing_with,
    full,
    loaded,
    merged,
    sparse,
)

from unlearning_core.methods import METHODS
from unlearning_core.tiny import MODEL


@pytest.fixture(scope="module")
def other(pack: Pack) -> Any:
    """What `WAYS` merge with."""
    return checkpoint_beside(pack, 0)


@pytest.fixture(scope="module")
def stranger(pack: Pack) -> Any:
    """What nothing is made of."""
    return checkpoint_beside(pack, 1)


def baked(pack: Pack, model: Any) -> Any:
    """The checkpoint that ComfyUI would save of a MODEL, loaded again."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model], force_full_load=True)
        state = {key: weight.clone() for key, weight in model.model.state_dict().items()}
        fresh = pack("nodes.host.tiny").load_model(MODEL)
        for key, weight in fresh.model.state_dict().items():
            weight.copy_(state[key])
    return fresh


def off_by(patch: Any, expected: Any) -> float:
    ours, theirs = patch.changes(), expected.changes()
    assert ours.keys() == theirs.keys()
    off, size = (
        sum(float(tensor.double().square().sum()) for tensor in tensors)
        for tensors in ([ours[name] - theirs[name] for name in theirs], theirs.values())
    )
    return (off / size) ** 0.5


@pytest.mark.parametrize("way", WAYS)
def test_a_change_of_weights_is_part_of_the_base(
    pack: Pack, model: Any, other: Any, stranger: Any, trained: Callable[..., Any], way: str
) -> None:
    """For a closed form and for training; the patch fits the MODEL and its saved checkpoint, and no other."""
    with torch.inference_mode():
        changed = WAYS[way](model, other)
    checkpoint = baked(pack, changed)
    fingerprint = pack("nodes.host.traits").fingerprint
    of_changed, of_checkpoint = (trained(base, "uce", "ovw") for base in (changed, checkpoint))
    for patch, expected in zip(of_changed, of_checkpoint, strict=True):
        # Other kernels may add up the same numbers in another order.
        assert off_by(patch, expected) <= 1e-5
        for base in (patch.record.base, expected.record.base):
            assert base.difference(fingerprint(changed)) is None
            assert base.difference(fingerprint(checkpoint)) is None
            assert base.difference(fingerprint(stranger)) is not None
        if way != "merge with itself":
            assert patch.record.base.difference(fingerprint(model)) is not None


def test_every_method_trains_on_a_merge(pack: Pack, model: Any, other: Any, trained: Callable[..., Any]) -> None:
    with torch.inference_mode():
        changed = loaded(WAYS["merge"](model, other), dora())
    for patch, expected in zip(trained(changed, *METHODS), trained(baked(pack, changed), *METHODS), strict=True):
        assert off_by(patch, expected) <= 1e-5, patch.record.method


@pytest.mark.parametrize("way", BESIDE)
def test_what_acts_beside_the_weights_is_refused_by_name(
    pack: Pack, model: Any, trained: Callable[..., Any], way: str
) -> None:
    make, word = BESIDE[way]
    with torch.inference_mode():
        carrying = make(model)
    with pytest.raises(ValueError, match=rf"model: it carries .*{word}.*; connect the node that adds it behind"):
        trained(carrying, "uce")


@pytest.mark.parametrize(
    "way",
    [way for way in BESIDE if way not in ("object patch", "weight in place", "patched method", "calc_cond_batch")],
)
def test_base_check_and_pictures_work_with_what_is_refused(
    pack: Pack, model: Any, clip: Any, trained: Callable[..., Any], way: str
) -> None:
    """As stock sampling does; what no content can tell apart is drawn anew each time."""
    with torch.inference_mode():
        carrying = BESIDE[way][0](model)
        assert (
            pack("nodes.host.traits").fingerprint(model).difference(pack("nodes.host.traits").fingerprint(carrying))
            is None
        )
        drawing = drawing_with(pack, clip)
        assert drawing.identity(carrying) != drawing.identity(model)
        assert drawing.draw(carrying, [("a cat face", 0)]).isfinite().all()


@pytest.mark.parametrize("way", SAMPLED)
def test_model_sampling_trains(pack: Pack, model: Any, trained: Callable[..., Any], way: str) -> None:
    with torch.inference_mode():
        sampled = SAMPLED[way](model)
    for patch in trained(sampled, "uce", "ovw"):
        difference = patch.record.base.difference(pack("nodes.host.traits").fingerprint(model))
        if way in ("eps", "lcm"):
            assert difference == "it predicted epsilon, this one predicts v_prediction"
        else:
            assert difference is None


@pytest.mark.parametrize("name", ["_forward", "forward", "_apply_model", "extra_conds"])
def test_functions_that_were_replaced_on_the_network(
    pack: Pack, model: Any, clip: Any, trained: Callable[..., Any], name: str
) -> None:
    place = model.model.diffusion_model if "forward" in name else model.model
    own = getattr(place, name)
    identity = drawing_with(pack, clip).identity
    setattr(place, name, lambda *inputs, **options: own(*inputs, **options))
    try:
        with pytest.raises(ValueError, match=f"model: it carries another {name} of"):
            trained(model, "uce")
        assert identity(model) != identity(model.clone())  # no telling what it does
    finally:
        delattr(place, name)


def test_a_change_away_from_the_middle_is_known(pack: Pack, model: Any, trained: Callable[..., Any]) -> None:
    """A fingerprint looks at one element of each weight, and at all of what patches add."""
    fingerprint = pack("nodes.host.traits").fingerprint
    with torch.inference_mode():
        changed, stronger = (loaded(model, sparse(), strength) for strength in (1.0, 1.1))
    [patch] = trained(changed, "uce")
    assert patch.record.base.difference(fingerprint(changed)) is None
    for other in (model, stronger):
        assert patch.record.base.difference(fingerprint(other)) is not None


def test_a_patch_beyond_what_fp16_holds_can_be_saved(
    pack: Pack, model: Any, trained: Callable[..., Any], tmp_path: Path
) -> None:
    with torch.inference_mode():
        changed = loaded(model, full(), 1e6)
    [patch] = trained(changed, "uce")
    patch.save(tmp_path / "patch.safetensors")
    type(patch).load(tmp_path / "patch.safetensors").check_base(pack("nodes.host.traits").fingerprint(changed))


def test_a_patch_below_a_merge_stays_as_it_is(pack: Pack, model: Any, other: Any, trained: Callable[..., Any]) -> None:
    """Only what is on top can change its strength."""
    import comfy.sd

    apply_patch = pack("nodes.host.patching").apply_patch
    [patch] = trained(model, "uce")
    with torch.inference_mode():
        mixed = merged("ModelMergeSimple", apply_patch(model, patch, 1.0), other, ratio=0.5)
        stock, _ = comfy.sd.load_lora_for_models(mixed, None, dict(patch.tensors), 1.0, 0.0)
        for ours, expected in ((apply_patch(mixed, patch, 0.0), mixed), (apply_patch(mixed, patch, 1.0), stock)):
            changes = [pack("nodes.host.weights").patch_changes(each) for each in (ours, expected)]
            assert all(torch.equal(changes[0][name], changes[1][name]) for name in patch.changes())


def test_a_checkpoint_with_few_small_changes_is_another(pack: Pack, model: Any, trained: Callable[..., Any]) -> None:
    [patch] = trained(model, "uce")
    with torch.inference_mode():
        checkpoint = baked(pack, pack("nodes.host.patching").apply_patch(model, patch, 0.3))
    fingerprint = pack("nodes.host.traits").fingerprint
    for one, two in ((model, checkpoint), (checkpoint, model)):
        assert fingerprint(one).difference(fingerprint(two)) is not None


@pytest.fixture(autouse=True)
def unloaded(pack: Pack) -> Iterator[None]:
    yield
    import comfy.model_management

    gc.collect()  # a MODEL in a cycle of references would be collected while ComfyUI 0.18 unloads it, which fails there
    comfy.model_management.unload_all_models()
