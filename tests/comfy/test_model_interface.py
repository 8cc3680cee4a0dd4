"""The ComfyUI host: the same numbers as the diffusers host, and patches that change a model exactly as trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.tiny import MODEL

Pack = Callable[[str], ModuleType]
PROMPTS = ["a cat face in noto style", "a car", ""]


@pytest.fixture(scope="module")
def diffusers_model() -> DiffusersModel:
    return load(MODEL)


@pytest.fixture
def comfy_model(pack: Pack, model: Any, clip: Any) -> Iterator[Any]:
    with pack("nodes.host.private").private_copy(model) as private:
        yield pack("nodes.host.model").ComfyModel(private, clip)


def noisy(sigma: float) -> tuple[Tensor, Tensor]:
    x = torch.randn(len(PROMPTS), 4, 16, 16, generator=torch.Generator().manual_seed(0)) * (sigma**2 + 1) ** 0.5
    return x, torch.full((len(PROMPTS),), sigma)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 3.0, 14.0])
@torch.no_grad()
def test_hosts_predict_the_same_noise(comfy_model: Any, diffusers_model: DiffusersModel, sigma: float) -> None:
    x, sigmas = noisy(sigma)
    e_comfy, e_diffusers = (
        (x - host.predict_x0(x, sigmas, host.encode(PROMPTS))) / sigma for host in (comfy_model, diffusers_model)
    )
    torch.testing.assert_close(e_comfy, e_diffusers, rtol=0, atol=1e-4)


def test_hosts_share_schedule_noise_and_names(comfy_model: Any, diffusers_model: DiffusersModel) -> None:
    torch.testing.assert_close(comfy_model.sigmas(20), diffusers_model.sigmas(20), rtol=1e-5, atol=0)
    noise = [host.noise([3, 4], 128, 128) for host in (comfy_model, diffusers_model)]
    torch.testing.assert_close(*noise, rtol=1e-5, atol=1e-5)
    ours, theirs = comfy_model.weights(), diffusers_model.weights()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name].flatten(), theirs[name].flatten()) for name in ours)


def short_patch(
    pack: Pack, host: Any, method: str, rank: int, prefix: str = "comfyui_unlearning.unlearning_core"
) -> Any:
    """A patch of three steps; `prefix` chooses which copy of the library trains, the pack's or this process's."""
    import importlib

    core = {name: importlib.import_module(f"{prefix}.{name}") for name in ("methods", "prompts", "settings", "unlearn")}
    kind = core["methods"].METHODS[method]
    prompts = core["prompts"].Prompts(("a cat face",), ("a dog face",), ("a car",))
    settings = core["settings"].Settings(
        steps=3, learning_rate=1e-3, rank=rank, width=128, height=128, runs=2, run_steps=3, weights=kind.weights
    )
    return core["unlearn"].unlearn(host, kind(), prompts, settings)


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("method", ["ovw", "esd"])
def test_attached_patched_and_stock_are_equal_bit_for_bit(
    pack: Pack, model: Any, comfy_model: Any, tmp_path: Path, method: str, rank: int
) -> None:
    """Deltas attached for training = patch at strength 1 = the saved file in the stock LoRA loader; 0 = the base."""
    import comfy.sd
    import comfy.utils

    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    patch = short_patch(pack, comfy_model, method, rank)
    patch.save(tmp_path / "patch.safetensors")
    file = comfy.utils.load_torch_file(str(tmp_path / "patch.safetensors"), safe_load=True)
    stock, _ = comfy.sd.load_lora_for_models(model, None, file, 1.0, 0.0)
    apply_patch = pack("nodes.host.patching").apply_patch

    base, patched, loaded, zero = (
        prediction(patcher)
        for patcher in (model, apply_patch(model, patch, 1.0), stock, apply_patch(model, patch, 0.0))
    )
    with comfy_model.attach(trained_deltas(pack, comfy_model, patch)):
        attached = prediction(comfy_model.patcher)

    assert not torch.equal(base, patched)
    assert torch.equal(attached, patched)
    assert torch.equal(patched, loaded)
    assert torch.equal(zero, base)
    assert torch.equal(prediction(model), base)
    assert torch.equal(prediction(comfy_model.patcher), base)
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.state_dict().items())


def trained_deltas(pack: Pack, host: Any, patch: Any) -> dict[str, Any]:
    """The deltas as they were at the end of training."""
    deltas = pack("unlearning_core.deltas")
    weights = host.weights()
    trained = {}
    for name in patch.changes():
        module, kind = name.rsplit(".", 1)
        if f"{module}.lora_up.weight" in patch.tensors:
            down = patch.tensors[f"{module}.lora_down.weight"]
            delta = deltas.LowRankDelta(weights[name], len(down), host.device, torch.Generator())
            delta.load_state_dict({"up": patch.tensors[f"{module}.lora_up.weight"], "down": down})
        else:
            delta = deltas.FullDelta(weights[name], host.device)
            delta.load_state_dict({"diff": patch.tensors[f"{module}.{'diff' if kind == 'weight' else 'diff_b'}"]})
        trained[name] = delta
    return trained


@torch.no_grad()
def prediction(patcher: Any) -> Tensor:
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    x, sigma = noisy(2.0)
    cond = torch.randn(len(PROMPTS), 16, 128, generator=torch.Generator().manual_seed(1))
    return patcher.model.apply_model(x, sigma, c_crossattn=cond)


def test_patch_of_either_host_works_in_the_other(
    pack: Pack, model: Any, comfy_model: Any, diffusers_model: DiffusersModel, tmp_path: Path
) -> None:
    from unlearning_core.patch import UnlearningPatch

    of_comfy = short_patch(pack, comfy_model, "ovw", 0)
    of_diffusers = short_patch(pack, diffusers_model, "ovw", 0, "unlearning_core")
    assert of_comfy.tensors.keys() == of_diffusers.tensors.keys()
    of_comfy.save(tmp_path / "comfy.safetensors")
    of_diffusers.save(tmp_path / "diffusers.safetensors")

    in_diffusers = UnlearningPatch.load(tmp_path / "comfy.safetensors")
    in_diffusers.check_base(diffusers_model.fingerprint())
    in_comfy = pack("unlearning_core.patch").UnlearningPatch.load(tmp_path / "diffusers.safetensors")
    in_comfy.check_base(pack("nodes.host.traits").fingerprint(model))
    patched = pack("nodes.host.patching").apply_patch(model, in_comfy, 1.0)

    x, sigma = noisy(2.0)
    with (
        torch.no_grad(),
        diffusers_model.patched(of_diffusers),
        pack("nodes.host.private").private_copy(patched) as private,
    ):
        host = pack("nodes.host.model").ComfyModel(private, comfy_model.clip)
        x0 = [other.predict_x0(x, sigma, other.encode(PROMPTS)) for other in (host, diffusers_model)]
    torch.testing.assert_close(*x0, rtol=0, atol=2e-4)  # 1e-4 in noise, times sigma
    with diffusers_model.patched(in_diffusers):
        pass


def test_checkpointed_blocks_know_which_they_are(pack: Pack, model: Any, clip: Any) -> None:
    """An attention patch that asks for its block computes the same twice."""

    def by_block(out: Tensor, options: dict[str, Any]) -> Tensor:
        kind, number = options["block"]
        return out * (1 + (0.1 * number if kind == "output" else 0))

    x, sigma = noisy(2.0)
    with pack("nodes.host.private").private_copy(model) as private:
        private.set_model_attn2_output_patch(by_block)
        host = pack("nodes.host.model").ComfyModel(private, clip)
        weights = host.weights()
        names = pack("unlearning_core.model").matching(list(weights), "cross_attention_kv")
        deltas = pack("unlearning_core.deltas").make_deltas({name: weights[name] for name in names}, 0, 0, host.device)

        def gradients() -> list[Tensor]:
            with host.attach(deltas):
                loss = host.predict_x0(x, sigma, host.encode(PROMPTS)).square().mean()
                return list(torch.autograd.grad(loss, [delta.diff for delta in deltas.values()]))

        expected = gradients()
        host.backward.checkpointing = True
        for gradient, other in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_dynamic_vram_reads_the_model_again_or_says_why_not(
    pack: Pack, model: Any, clip: Any, comfy_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `model` is on a GPU is pretended here: dynamic VRAM needs one."""
    x, sigma = noisy(2.0)
    private_copy = pack("nodes.host.private").private_copy
    patch = short_patch(pack, comfy_model, "esd", 0)
    dynamic = pack("nodes.host.patching").apply_patch(model, patch, 1.0)
    expected = prediction(dynamic)
    monkeypatch.setattr(dynamic, "is_dynamic", lambda: True)
    with private_copy(dynamic) as private:
        assert not private.is_dynamic()
        assert private.model is not dynamic.model
        assert torch.equal(prediction(private), expected)
        host = pack("nodes.host.model").ComfyModel(private, clip)
        [weight, *_] = host.weights()
        [delta] = (
            pack("unlearning_core.deltas").make_deltas({weight: host.weights()[weight]}, 0, 0, host.device).values()
        )
        with host.attach({weight: delta}):
            host.predict_x0(x, sigma, host.encode(PROMPTS)).sum().backward()
        assert delta.diff.grad is not None
    monkeypatch.setattr(dynamic, "cached_patcher_init", None)
    with pytest.raises(ValueError, match="its loader cannot load it a second time"), private_copy(dynamic):
        pass


def test_private_copy_holds_the_patches_and_not_other_clones_of_the_model(
    pack: Pack, model: Any, comfy_model: Any
) -> None:
    patch = short_patch(pack, comfy_model, "esd", 0)
    patched = pack("nodes.host.patching").apply_patch(model, patch, 1.0)
    expected = prediction(patched)  # leaves the shared weights patched
    private_copy = pack("nodes.host.private").private_copy
    with private_copy(model) as of_base, private_copy(patched) as of_patched:
        assert torch.equal(prediction(of_patched), expected)
        assert not torch.equal(prediction(of_base), expected)
    assert torch.equal(prediction(patched), expected)
