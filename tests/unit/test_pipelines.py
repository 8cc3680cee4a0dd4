"""Pipelines as people bring them: LoRA files that diffusers opens, what is refused, and schedulers of any class."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers
import pipelines
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor2_0
from torch import Tensor

from unlearning_core.deltas import left_out, make_deltas
from unlearning_core.export import to_low_rank
from unlearning_core.fingerprint import Fingerprint
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import host_of, load
from unlearning_core.model import noise_prediction
from unlearning_core.patch import Record, UnlearningPatch
from unlearning_core.sampling import sample_euler
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import lora_tensors, new_deltas

FAMILIES = ["tiny", "sd15", "sd21", "sdxl", "sd3", "flux"]
RECORD = Record("ovw", {}, ["a cat"], [], [], {}, Fingerprint("", ""), {})


@pytest.fixture(scope="module")
def host(comfyui_path: Path, family: str) -> DiffusersModel:
    return load(MODEL) if family == "tiny" else host_of(pipelines.make_pipeline(family, comfyui_path))


@pytest.fixture(scope="module")
def sd15(comfyui_path: Path) -> Any:
    return pipelines.make_pipeline("sd15", comfyui_path)


@pytest.fixture
def pipeline(sd15: Any) -> Any:
    """With a network and a scheduler of its own."""
    parts = {**sd15.components, "unet": copy.deepcopy(sd15.unet), "scheduler": copy.deepcopy(sd15.scheduler)}
    return diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)


def random_patch(host: DiffusersModel, selection: str, rank: int) -> UnlearningPatch:
    deltas = new_deltas(host, Settings(rank=rank, alpha=rank / 2, weights=selection))
    generator = torch.Generator().manual_seed(1)
    for delta in deltas.values():
        for parameter in delta.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 10
    return UnlearningPatch(lora_tensors(deltas), RECORD)


def predicted(host: DiffusersModel) -> Tensor:
    x = host.noise([0], 64, 64)
    with torch.no_grad():
        return noise_prediction(host, x, host.sigmas(4)[1:2], host.encode(["a cat"]))


def far(a: Tensor, b: Tensor, base: Tensor) -> float:
    """Of the change from base to b."""
    return float((a - b).norm() / (b - base).norm())


@pytest.mark.parametrize("family", FAMILIES, scope="module")
class TestLoraInDiffusers:
    @pytest.mark.parametrize(
        ("selection", "rank"), [("all", 1000), ("not_cross_attention", 4), ("cross_attention_kv", 1)]
    )
    def test_every_layer_has_its_change(self, host: DiffusersModel, selection: str, rank: int, tmp_path: Path) -> None:
        patch = random_patch(host, selection, rank)
        patch.save(tmp_path / "lora.safetensors")
        before = {name: weight.clone() for name, weight in host.weights().items()}
        host.pipeline.load_lora_weights(tmp_path / "lora.safetensors")
        try:
            host.pipeline.fuse_lora()
            for name, change in patch.changes().items():
                got = host.weights()[name] - before[name]
                assert (got - change).norm() <= 1e-5 * (change.norm() + before[name].norm()), name
            changed = {name for name, weight in host.weights().items() if not torch.equal(weight, before[name])}
            assert changed == patch.changes().keys()
        finally:
            host.pipeline.unfuse_lora()
            host.pipeline.unload_lora_weights()
            for name, parameter in host._parameters.items():
                parameter.data = before[name]

    def test_strength_and_unloading(self, host: DiffusersModel, tmp_path: Path) -> None:
        patch = random_patch(host, "attention", 4)
        patch.save(tmp_path / "lora.safetensors")
        base = predicted(host)
        host.pipeline.load_lora_weights(tmp_path / "lora.safetensors", adapter_name="forget")
        seen = []
        for strength in (1.0, 0.5):
            host.pipeline.set_adapters(["forget"], [strength])
            seen.append(predicted(host))
        host.pipeline.unload_lora_weights()
        assert torch.equal(predicted(host), base)
        for strength, got in zip((1.0, 0.5), seen, strict=True):
            with host.patched(patch, strength):
                assert far(got, predicted(host), base) < 1e-4

    def test_what_is_left_out_is_said(self, host: DiffusersModel) -> None:
        weights = host.weights()
        kept = make_deltas(weights, 4, 0, host.device)
        said = left_out(weights)
        for name, weight in weights.items():
            layer = name.removesuffix(".weight")
            assert (weight.ndim >= 2 and name not in kept) == (f" {layer}," in said), name
        # Within the blocks nothing is lost.
        assert all("_block" not in part for part in said.split() if part.startswith("lora_unet_"))
        some = [name for name, weight in weights.items() if name in kept or weight.ndim >= 2][:8]
        full = UnlearningPatch({f"{name.rpartition('.')[0]}.diff": weights[name] for name in some}, RECORD)
        low_rank = to_low_rank(full, 1000)
        assert low_rank.changes().keys() == kept.keys() & set(some)
        downs = [pair for key, pair in low_rank.tensors.items() if key.endswith(("lora_down.weight", "lora_A.weight"))]
        assert len({len(down) for down in downs}) == 1


def with_adapter(pipe: Any) -> None:
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]))


def with_dora(pipe: Any) -> None:
    from peft import LoraConfig

    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"], use_dora=True))


def with_ip_adapter(pipe: Any) -> None:
    own = pipe.unet.attn_processors
    cross = {name: IPAdapterAttnProcessor2_0(64, 32) for name in own if "attn2" in name}
    pipe.unet.set_attn_processor({**own, **cross})


class Custom(AttnProcessor):  # type: ignore[misc]
    pass


def compiled(pipe: Any) -> None:
    pipe.unet = torch.compile(pipe.unet)


def quantised(pipe: Any) -> None:
    weight = pipe.unet.conv_in.weight
    pipe.unet.conv_in.weight = torch.nn.Parameter(weight.to(torch.int8), requires_grad=False)


def on_meta(pipe: Any) -> None:
    pipe.unet.conv_in.to("meta")


def replaced(pipe: Any) -> None:
    pipe.unet.conv_in = torch.nn.Conv2d(9, 64, 3, padding=1)


CHANGED: dict[str, tuple[Callable[[Any], object], str]] = {
    "adapter": (with_adapter, r"attn1.to_k \(Linear\) is no part of UNet2DConditionModel; merge adapters with fuse_"),
    "dora": (with_dora, r"fuse_lora\(\)"),
    "ip adapter": (with_ip_adapter, r"processor is IPAdapterAttnProcessor2_0, .*unload_ip_adapter"),
    "custom": (lambda pipe: pipe.unet.set_attn_processor(Custom()), "processor is Custom, .*set_default_attn_proc"),
    "freeu": (lambda pipe: pipe.enable_freeu(0.9, 0.2, 1.2, 1.4), r"up_blocks.0 was changed .*\(b1, b2, s1, s2\)"),
    "fused": (lambda pipe: pipe.unet.fuse_qkv_projections(), "unfuse_qkv_projections"),
    "compiled": (compiled, "wrapped in OptimizedModule"),
    "compiled in place": (lambda pipe: pipe.unet.mid_block.compile(), "is compiled; use the pipeline before"),
    "casting": (
        lambda pipe: pipe.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
        r"\(Conv2d\) has hooks, as offloading and layerwise casting",
    ),
    "hook": (lambda pipe: pipe.unet.mid_block.register_forward_hook(lambda *_: None), "mid_block .* has hooks"),
    "quantised": (quantised, r"conv_in.weight is quantised \(Tensor, torch.int8\)"),
    "meta": (on_meta, "conv_in.weight is not loaded"),
    "inpainting": (replaced, "conv_in"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_networks_that_weights_do_not_tell_are_refused(pipeline: Any, change: str) -> None:
    apply, message = CHANGED[change]
    host_of(pipeline)
    with suppress(ValueError):  # torch's own about integers that need gradients
        pipeline.unet.requires_grad_(False)
    apply(pipeline)
    with pytest.raises(ValueError, match=f"^model: .*{message}"):
        host_of(pipeline)


def test_fused_lora_is_the_base(comfyui_path: Path, tmp_path: Path) -> None:
    host = host_of(pipelines.make_pipeline("sd15", comfyui_path))
    names = list(host.weights())
    patch = random_patch(host, "attention", 4)
    patch.save(tmp_path / "lora.safetensors")
    with host.patched(patch):
        expected = predicted(host)
    host.pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    host.pipeline.fuse_lora()
    host.pipeline.unload_lora_weights()
    opened = host_of(host.pipeline)
    assert list(opened.weights()) == names
    torch.testing.assert_close(predicted(opened), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("enable", ["enable_attention_slicing", "enable_freeu then disable_freeu"])
def test_what_computes_the_same_is_taken(pipeline: Any, enable: str) -> None:
    expected = predicted(host_of(pipeline))
    for step in enable.split(" then "):
        getattr(pipeline, step)(*([0.9, 0.2, 1.2, 1.4] if step == "enable_freeu" else []))
    torch.testing.assert_close(predicted(host_of(pipeline)), expected, rtol=1e-4, atol=1e-4)


SCHEDULERS = ["DDPM", "PNDM", "LCM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "TCD"]


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
def test_any_discrete_scheduler_has_the_same_levels(pipeline: Any, name: str, betas: str) -> None:
    """Also after a drawing set its steps."""
    levels = []
    for kind in ("DDIM", name):
        options = {"timestep_spacing": "trailing", "beta_schedule": betas}
        scheduler = getattr(diffusers, f"{kind}Scheduler").from_config(pipeline.scheduler.config, **options)
        pipeline.scheduler = scheduler
        host = host_of(pipeline)
        pipeline.scheduler.set_timesteps(4)
        levels.append(host.training_sigmas)
    assert levels[0].isfinite().all() and levels[0].diff().min() > 0
    torch.testing.assert_close(*levels)


@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LCM"])
def test_zero_terminal_snr(pipeline: Any, name: str) -> None:
    """Finite levels for every class; x0 of v at the top is its closed form."""
    config = pipeline.scheduler.config
    # Lin et al. 2024: shifted to end in 0, scaled to begin as before.
    roots = pipeline.scheduler.alphas_cumprod**0.5
    alphas_cumprod = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    options = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    pipeline.scheduler = getattr(diffusers, f"{name}Scheduler").from_config(config, **options)
    host = host_of(pipeline)
    expected = (1 / alphas_cumprod - 1) ** 0.5
    torch.testing.assert_close(host.training_sigmas[:-1], expected[:-1], rtol=1e-3, atol=1e-4)
    assert host.training_sigmas[-1] > host.training_sigmas[-2]

    raw: list[Tensor] = []
    hook = host.denoiser.register_forward_hook(lambda module, inputs, output: raw.append(output[0]))
    x, sigma, conds = host.noise([0], 64, 64), host.sigmas(4), host.encode(["a cat"])
    with torch.no_grad():
        x0 = host.predict_x0(x, sigma[:1], conds)
        hook.remove()
        # alpha x - sqrt(1 - alpha^2) v of the input at unit variance, with alpha = sqrt(alphas_cumprod)
        alpha = 4.8973451890853435e-08**0.5
        scaled = x / (sigma[0] ** 2 + 1) ** 0.5
        torch.testing.assert_close(x0, alpha * scaled - (1 - alpha**2) ** 0.5 * raw[0], rtol=1e-4, atol=1e-4)
        drawn = sample_euler(lambda y, s: noise_prediction(host, y, s.expand(1), conds), x, sigma)
    assert drawn.isfinite().all()


@pytest.mark.parametrize("prediction", ["sample", "flow_prediction"])
def test_other_predictions_are_refused(pipeline: Any, prediction: str) -> None:
    pipeline.scheduler.register_to_config(prediction_type=prediction)
    with pytest.raises(ValueError, match=f"prediction type '{prediction}' is not supported"):
        host_of(pipeline)


@pytest.mark.parametrize("name", ["EDMEuler", "FlowMatchEulerDiscrete"])
def test_schedulers_without_discrete_levels_are_refused(pipeline: Any, name: str) -> None:
    pipeline.scheduler = getattr(diffusers, f"{name}Scheduler")()
    with pytest.raises(ValueError, match=f"scheduler {name}Scheduler has no alphas_cumprod"):
        host_of(pipeline)


@pytest.mark.parametrize("family", ["sd3", "flux"], scope="module")
def test_levels_of_flow_schedulers(host: DiffusersModel, family: str) -> None:
    """They depend on the shift alone, not on the scheduler's class or the steps it was set to."""
    pipe = copy.copy(host.pipeline)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.5)
    expected = host_of(pipe).training_sigmas
    assert expected[-1] == 1
    pipe.scheduler.set_timesteps(4)
    shifted = diffusers.FlowMatchEulerDiscreteScheduler()
    shifted.set_shift(2.5)
    others = [
        pipe.scheduler,
        shifted,
        diffusers.FlowMatchHeunDiscreteScheduler(shift=2.5),
        diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=2.5),
    ]
    for scheduler in others:
        pipe.scheduler = scheduler
        torch.testing.assert_close(host_of(pipe).training_sigmas, expected)
    pipe.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(ValueError, match="scheduler DDIMScheduler is not set up for flow matching"):
        host_of(pipe)
