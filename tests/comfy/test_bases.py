"""What a MODEL is when it reaches Unlearn Concept: all of it is the base, or it is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearning_core.methods import METHODS
from unlearning_core.tiny import MODEL

Pack = Callable[[str], ModuleType]
Node = Callable[..., Any]
CHANGED = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
ATTENTION = CHANGED.removesuffix(".to_k.weight")
LORA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora(width: int = 64, text: int = 128) -> dict[str, Tensor]:
    down = seeded(4, text, seed=1) / text**0.5
    return {f"{LORA}.lora_up.weight": 0.5 * seeded(2 * width, 4), f"{LORA}.lora_down.weight": down}


def dora() -> dict[str, Tensor]:
    return {**lora(), f"{LORA}.dora_scale": 1 + seeded(1, 128, seed=2).abs()}


def lokr() -> dict[str, Tensor]:
    return {f"{LORA}.lokr_w1": 0.3 * seeded(8, 8), f"{LORA}.lokr_w2": 0.3 * seeded(16, 16, seed=1)}


def loha() -> dict[str, Tensor]:
    shapes = {"hada_w1_a": (128, 4), "hada_w1_b": (4, 128), "hada_w2_a": (128, 4), "hada_w2_b": (4, 128)}
    return {f"{LORA}.{name}": 0.4 * seeded(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}


def oft() -> dict[str, Tensor]:
    return {f"{LORA}.oft_blocks": 0.05 * seeded(8, 16, 16)}


def full() -> dict[str, Tensor]:
    return {f"{LORA}.diff": 0.1 * seeded(128, 128)}


LORAS = {"lora": lora, "dora": dora, "lokr": lokr, "loha": loha, "oft": oft, "full": full}


def checkpoint_beside(pack: Pack, seed: int) -> Any:
    """Another checkpoint of the family."""
    with torch.inference_mode():
        model = pack("nodes.host.tiny").load_model(MODEL)
        for number, weight in enumerate(model.model.diffusion_model.parameters()):
            weight.add_(0.2 * weight.std(correction=0) * seeded(*weight.shape, seed=1000 * seed + number))
    return model


@pytest.fixture(scope="module")
def other(pack: Pack) -> Any:
    """What `WAYS` merge with."""
    return checkpoint_beside(pack, 0)


@pytest.fixture(scope="module")
def stranger(pack: Pack) -> Any:
    """What nothing is made of."""
    return checkpoint_beside(pack, 1)


def extras(name: str, node: str) -> Node:
    """The function of one of ComfyUI's own nodes."""
    import importlib

    kind = getattr(importlib.import_module(f"comfy_extras.{name}"), node)
    if hasattr(kind, "execute"):
        return lambda *inputs, **options: kind.execute(*inputs, **options)[0]
    return lambda *inputs, **options: getattr(kind(), kind.FUNCTION)(*inputs, **options)[0]


def loaded(model: Any, file: dict[str, Tensor], strength: float = 1.0) -> Any:
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, dict(file), strength, 0.0)[0]


def adapted(file: Callable[[], dict[str, Tensor]]) -> Callable[[Any, Any], Any]:
    return lambda model, other: loaded(model, file(), -0.6)


def merged(node: str, *models: Any, **options: Any) -> Any:
    return extras("nodes_model_merging", node)(*models, **options)


# Each puts a change of weights on `model`; `other` is another checkpoint.
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    **{kind: adapted(file) for kind, file in LORAS.items()},
    "merge": lambda m, o: merged("ModelMergeSimple", m, o, ratio=0.5),
    "merge with itself": lambda m, o: merged("ModelMergeSimple", m, m, ratio=0.5),
    "merge of merges": lambda m, o: merged(
        "ModelMergeSimple", merged("ModelMergeSimple", m, o, ratio=0.3), loaded(o, lora()), ratio=0.7
    ),
    "difference": lambda m, o: merged("ModelAdd", m, merged("ModelSubtract", o, m, multiplier=0.5)),
    "block merge": lambda m, o: merged("ModelMergeBlocks", m, o, input=0.3, middle=0.6, out=0.9),
    "lora on a merge": lambda m, o: loaded(merged("ModelMergeSimple", m, o, ratio=0.5), lora()),
    "dora on a lora": lambda m, o: loaded(loaded(m, full()), dora()),
    "attention multiplied": lambda m, o: extras("nodes_attention_multiply", "UNetCrossAttentionMultiply")(
        m, 1.2, 0.8, 1.1, 0.9
    ),
}


@pytest.fixture
def trained(unlearned: Callable[..., Any], clip: Any) -> Callable[..., Any]:
    """A patch by each method."""
    return lambda model, *methods: [unlearned(model, clip, method) for method in methods]


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


def bypass(model: Any) -> Any:
    import comfy.sd

    return comfy.sd.load_bypass_lora_for_models(model, None, lora(), 1.0, 0.0)[0]


def hooked(model: Any) -> Any:
    import comfy.hooks

    patched = model.clone()
    patched.forced_hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)
    return patched


def with_call(method: str, *arguments: Any) -> Callable[[Any], Any]:
    def make(model: Any) -> Any:
        patched = model.clone()
        getattr(patched, method)(*arguments)
        return patched

    return make


def same(value: Any, *rest: Any) -> Any:
    return value


# Each puts something on a MODEL that acts beside its weights -> a word of the refusal.
BESIDE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "FreeU": (lambda m: extras("nodes_freelunch", "FreeU")(m, 1.1, 1.2, 0.9, 0.2), "FreeU"),
    "FreeU_V2": (lambda m: extras("nodes_freelunch", "FreeU_V2")(m, 1.3, 1.4, 0.9, 0.2), "FreeU_V2"),
    "bypass LoRA": (bypass, "bypass_lora"),
    "hooks": (hooked, "forced_hooks"),
    "ToMe": (lambda m: extras("nodes_tomesd", "TomePatchModel")(m, 0.3), "Tome"),
    "HyperTile": (lambda m: extras("nodes_hypertile", "HyperTile")(m, 64, 2, 0, False), "HyperTile"),
    "deep shrink": (
        lambda m: extras("nodes_model_downscale", "PatchModelAddDownscale")(
            m, 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
        ),
        "Downscale",
    ),
    "attention patch": (with_call("set_model_attn2_patch", lambda q, k, v, options: (q, k, v)), "attn2_patch"),
    "input block patch": (with_call("set_model_input_block_patch", same), "input_block_patch"),
    "unet wrapper": (
        with_call("set_model_unet_function_wrapper", lambda apply, a: apply(a["input"], a["timestep"], **a["c"])),
        "model_function_wrapper",
    ),
    "calc_cond_batch": (with_call("set_model_sampler_calc_cond_batch_function", same), "calc_cond_batch"),
    "wrapper": (with_call("add_wrapper", "diffusion_model", lambda executor, *a, **k: executor(*a, **k)), "wrappers"),
    "callback": (with_call("add_callback", "on_load", same), "callbacks"),
    "object patch": (with_call("add_object_patch", "diffusion_model.time_embed", torch.nn.Identity()), "time_embed"),
    "weight in place": (with_call("add_object_patch", CHANGED, torch.nn.Parameter(torch.ones(128, 128))), CHANGED),
    "patched method": (with_call("add_object_patch", "diffusion_model.forward", same), "diffusion_model.forward"),
    "value in place": (with_call("add_object_patch", f"{ATTENTION}.heads", 1), "attn2.heads"),
    "weight wrapper": (with_call("add_weight_wrapper", CHANGED, same), "weight_wrapper_patches"),
}


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


def drawing_with(pack: Pack, clip: Any) -> Any:
    host = pack("nodes.host.drawing")
    vae = pack("nodes.host.tiny").load_vae(MODEL)
    return host.ComfyDrawing(clip, vae, host.KSamplerSettings("euler", "simple", 2, 3.0, 64, 64), lambda pictures: None)


def discrete(sampling: str, zsnr: bool = False) -> Callable[[Any], Any]:
    return lambda m: extras("nodes_model_advanced", "ModelSamplingDiscrete")(m, sampling, zsnr)


# Each changes how a MODEL is sampled, in a way that training follows or does not meet.
SAMPLED: dict[str, Callable[[Any], Any]] = {
    "eps": discrete("eps"),
    "v_prediction": discrete("v_prediction"),
    "zero terminal SNR": discrete("v_prediction", zsnr=True),
    "lcm": discrete("lcm"),
    "PAG": lambda m: extras("nodes_pag", "PerturbedAttentionGuidance")(m, 3.0),
    "RescaleCFG": lambda m: extras("nodes_model_advanced", "RescaleCFG")(m, 0.7),
    "compute type": lambda m: extras("nodes_model_advanced", "ModelComputeDtype")(m, "fp32"),
}


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


class Wrapped(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.inner(*inputs, **options)


def wrapped(model: Any) -> Any:
    place = ATTENTION.rpartition(".")[0]
    return with_call("add_object_patch", place, Wrapped(model.get_model_object(place)))(model)


# Each leaves something on the network that all clones share, once it was loaded.
LEFT: dict[str, Callable[[Any], Any]] = {
    "bypass LoRA": bypass,
    "hooks": hooked,
    "LoRA": lambda model: loaded(model, lora()),
    "weight": BESIDE["weight in place"][0],
    "value": BESIDE["value in place"][0],
    "sampling": discrete("eps"),
    "wrapped block": wrapped,
}


@pytest.mark.parametrize("way", LEFT)
def test_another_clone_that_is_loaded_does_not_shine_through(
    pack: Pack, model: Any, clip: Any, trained: Callable[..., Any], way: str
) -> None:
    """Neither in patches, nor in fingerprints; and what it carries is there again when it draws."""
    from comfy.model_management import load_models_gpu, unload_all_models

    fingerprint = pack("nodes.host.traits").fingerprint
    expected = trained(model, "ovw", "uce")
    with torch.inference_mode():
        carrying = LEFT[way](model)
        drawing = drawing_with(pack, clip)
        of_model, of_carrying = (drawing.draw(each, [("a cat face", 0)]) for each in (model, carrying))
        for index, method in enumerate(("ovw", "uce")):
            unload_all_models()
            load_models_gpu([carrying], force_full_load=True)
            assert fingerprint(model) == expected[index].record.base
            assert torch.equal(drawing.draw(carrying, [("a cat face", 0)]), of_carrying)
            [patch] = trained(model, method)
            assert patch.record.base == expected[index].record.base
            assert all(torch.equal(patch.tensors[key], tensor) for key, tensor in expected[index].tensors.items())
            assert torch.equal(drawing.draw(model, [("a cat face", 0)]), of_model)
            assert torch.equal(drawing.draw(carrying, [("a cat face", 0)]), of_carrying)


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


def sparse() -> dict[str, Tensor]:
    """A LoRA that leaves the middle of the weight alone."""
    file = lora()
    file[f"{LORA}.lora_up.weight"][60:70] = 0
    return file


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

    comfy.model_management.unload_all_models()
