"""Each family in both hosts: the same names, schedule, predictions, gradients and patches on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import checkpoints
import pipelines
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from unlearning_core import reads
from unlearning_core.bank import bank_sources, make_bank
from unlearning_core.deltas import make_deltas
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import host_of, load
from unlearning_core.hosts.flux import Flux
from unlearning_core.hosts.stable_diffusion import StableDiffusion
from unlearning_core.latents import Batch
from unlearning_core.memory import kept_bytes, needed
from unlearning_core.methods import METHODS, GradientMethod
from unlearning_core.methods.base import Step
from unlearning_core.methods.esd import Esd
from unlearning_core.methods.ovw import Ovw
from unlearning_core.model import matching, noise_prediction
from unlearning_core.patch import UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.unlearn import new_deltas, unlearn

Pack = Callable[[str], ModuleType]
FAMILIES = ["sd15", "sd21", "sdxl", "sd3", "flux"]
PROMPTS = Prompts(("a cat face",), ("a dog face",), ("a car",))
LENGTHS = (77, 90, 154, 231)  # 90 and the others have no small common multiple
TEXTS = ["a cat face", "a dog face", "a car", ""]
SETTINGS = Settings(width=64, height=64, runs=2, run_steps=3, batch_size=2, weights="cross_attention_kv")
UNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd15": ("SD15", {"transformer_depth": [1, 0], "transformer_depth_output": [1, 1, 0, 0], "num_heads": 8}),
    "sd21": ("SD20", {"transformer_depth": [1, 0], "transformer_depth_output": [1, 1, 0, 0]}),
    "sdxl": (
        "SDXL",
        {
            "transformer_depth": [0, 2],
            "transformer_depth_middle": 2,
            "transformer_depth_output": [0, 0, 2, 2],
            "num_classes": "sequential",
            "adm_in_channels": 6 * 256 + pipelines.WIDTH,
            "context_dim": 2 * pipelines.WIDTH,
        },
    ),
}


@pytest.fixture(scope="module")
def host(comfyui_path: Path, family: str) -> DiffusersModel:
    return host_of(pipelines.make_pipeline(family, comfyui_path))


@pytest.fixture(scope="module")
def model(pack: Pack, host: DiffusersModel, family: str) -> Any:
    """The denoiser's weights in ComfyUI: transformers by its stock loader, which knows U-Nets in full size only."""
    import comfy.sd

    with torch.inference_mode():
        weights = {name: weight.clone() for name, weight in host.denoiser.state_dict().items()}
        if family in UNETS:
            return small_unet(family, weights)
        return comfy.sd.load_diffusion_model_state_dict(weights)


def small_unet(family: str, weights: dict[str, Tensor]) -> Any:
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils

    name, shape = UNETS[family]
    small = {"model_channels": 64, "channel_mult": (1, 2), "num_res_blocks": [1, 1], "context_dim": pipelines.WIDTH}
    config = getattr(comfy.supported_models, name)({**checkpoints.UNETS[family], **small, **shape})
    config.set_inference_dtype(torch.float32, None)
    if family == "sd21":  # ComfyUI finds out by a weight of the full-size network
        config.model_type = lambda state_dict, prefix="": comfy.model_base.ModelType.V_PREDICTION
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    weights = {names[name]: weight for name, weight in weights.items()}
    model = config.get_model(weights)
    model.load_model_weights(weights)
    device = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


@contextmanager
def comfy_host(pack: Pack, model: Any, host: DiffusersModel) -> Iterator[Any]:
    """ComfyUI's host, under the text that diffusers' encoders give."""
    with pack("nodes.host.private").private_copy(model) as private:
        comfy_model = pack("nodes.host.model").ComfyModel(private, None)
        texts = [*TEXTS, *reads.TEXTS]
        for prompt, text in zip(texts, host.encode(texts), strict=True):
            pooled = {} if text.pooled is None else {"pooled_output": text.pooled[None]}
            comfy_model._encoded[prompt] = [[text.tokens[None], pooled]]
        yield comfy_model


@pytest.fixture
def comfy_model(pack: Pack, model: Any, host: DiffusersModel) -> Iterator[Any]:
    with comfy_host(pack, model, host) as opened:
        yield opened


def with_lengths(comfy_model: Any) -> None:
    """Prompts such as "154", whose conditioning has so many tokens."""
    [[tokens, extra]] = comfy_model._encoded["a car"]
    for length in LENGTHS:
        random = torch.randn(1, length, tokens.shape[2], generator=torch.Generator().manual_seed(length))
        comfy_model._encoded.setdefault(str(length), [[random, extra]])


def chosen(host: Any) -> list[str]:
    """A few weights of the selections that methods train."""
    names = list(host.weights())
    groups = [matching(names, group) for group in ("text_projections", "cross_attention_kv", "attention")]
    return sorted({name for group in groups for name in (group[0], group[-1])})


def gradients(host: Any, method: GradientMethod) -> dict[str, Tensor]:
    """Of the objective on latents of the host's own bank."""
    bank = make_bank(host, bank_sources(method.needs, PROMPTS, SETTINGS.bank), SETTINGS.sampling, lambda: None)
    weights = host.weights()
    deltas = make_deltas({name: weights[name] for name in chosen(host)}, 0, 0, host.device)
    batch = bank.forget.sample(3, torch.Generator().manual_seed(1))
    with host.attach(deltas):
        e = noise_prediction(host, batch.x, batch.sigma, batch.conds)
        method.loss(Step(batch, e, None, None)).backward()
    return {name: delta.get_parameter("diff").grad for name, delta in deltas.items()}  # type: ignore[misc]


def short_patch(host: Any, method: str, rank: int) -> UnlearningPatch:
    settings = replace(SETTINGS, steps=2, learning_rate=5e-2, rank=rank, weights="attention")
    return unlearn(host, METHODS[method](), PROMPTS, settings)


def noisy(host: DiffusersModel) -> tuple[Tensor, Tensor]:
    x = torch.randn(2, host.channels, 8, 8, generator=torch.Generator().manual_seed(2))
    return x * host.noise_scale, torch.full((2,), 0.7)


def predicted(host: Any, like: DiffusersModel) -> Tensor:
    x, sigma = noisy(like)
    with torch.no_grad():
        return noise_prediction(host, x, sigma, host.encode(TEXTS[:2]))


@pytest.mark.parametrize("family", FAMILIES, scope="module")
class TestHosts:
    def test_share_names_weights_schedule_and_noise(self, comfy_model: Any, host: DiffusersModel) -> None:
        ours, theirs = comfy_model.weights(), host.weights()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name].flatten(), theirs[name].flatten()) for name in ours)
        torch.testing.assert_close(comfy_model.sigmas(7), host.sigmas(7), rtol=1e-5, atol=0)
        noise = [opened.noise([3, 4], 64, 64) for opened in (comfy_model, host)]
        torch.testing.assert_close(*noise, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("method", ["ovw", "esd"])
    def test_objectives_have_the_same_gradient(self, comfy_model: Any, host: DiffusersModel, method: str) -> None:
        kind = METHODS[method]()
        assert isinstance(kind, GradientMethod)
        ours, theirs = gradients(comfy_model, kind), gradients(host, kind)
        assert ours.keys() == theirs.keys()
        for name, gradient in theirs.items():
            assert gradient.norm() > 0, name
            assert (ours[name] - gradient).norm() <= 1e-4 * gradient.norm(), name

    @pytest.mark.parametrize("made", [(place, rank) for place in ("comfyui", "diffusers") for rank in (0, 4)])
    def test_patch_opens_everywhere(
        self, pack: Pack, model: Any, comfy_model: Any, host: DiffusersModel, made: tuple[str, int], tmp_path: Path
    ) -> None:
        """In both hosts, the stock LoRA loader and, for low rank, diffusers' `load_lora_weights`."""
        import comfy.sd
        import comfy.utils

        made_in, rank = made
        base = predicted(host, host)
        short_patch(comfy_model if made_in == "comfyui" else host, "esd", rank).save(tmp_path / "patch.safetensors")
        patch = UnlearningPatch.load(tmp_path / "patch.safetensors")
        with host.patched(patch):
            expected = predicted(host, host)
        assert (expected - base).abs().max() > 1e-2

        file = comfy.utils.load_torch_file(str(tmp_path / "patch.safetensors"), safe_load=True)
        stock, _ = comfy.sd.load_lora_for_models(model, None, file, 1.0, 0.0)
        ours = pack("nodes.host.patching").apply_patch(model, patch, 1.0)
        for patched in (stock, ours):
            with comfy_host(pack, patched, host) as opened:
                torch.testing.assert_close(predicted(opened, host), expected, rtol=1e-4, atol=1e-4)

        if rank:
            host.pipeline.load_lora_weights(tmp_path / "patch.safetensors")
            try:
                torch.testing.assert_close(predicted(host, host), expected, rtol=1e-4, atol=1e-4)
            finally:
                host.pipeline.unload_lora_weights()
        assert torch.equal(predicted(host, host), base)

    @given(lengths=st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=5))
    @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_prompts_of_unequal_length_predict_as_one_by_one(
        self, comfy_model: Any, host: DiffusersModel, lengths: list[int]
    ) -> None:
        with_lengths(comfy_model)
        x = torch.randn(len(lengths), host.channels, 8, 8, generator=torch.Generator().manual_seed(2))
        sigma, conds = torch.linspace(0.2, 0.9, len(x)), comfy_model.encode([str(length) for length in lengths])
        with torch.no_grad():
            together = comfy_model.predict_x0(x, sigma, conds)
            alone = [comfy_model.predict_x0(*row) for row in zip(x.split(1), sigma.split(1), zip(conds), strict=True)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)

    def test_prompts_of_unequal_length_train(self, comfy_model: Any) -> None:
        with_lengths(comfy_model)
        prompts = Prompts(("154", "77"), ("90",), ("231",))
        patch = unlearn(comfy_model, Ovw(help_weight=1.0), prompts, replace(SETTINGS, steps=1, batch_size=4))
        assert all(change.isfinite().all() and change.any() for change in patch.changes().values())

    def test_esd_at_eta_one_has_its_closed_form(self, host: DiffusersModel) -> None:
        """Two unconditional predictions less the conditional one, in what the network itself predicts."""
        x, sigma = noisy(host)
        conds, unconds = (host.encode([prompt] * len(x)) for prompt in ("a cat face", ""))
        raw: list[Tensor] = []
        hook = host.denoiser.register_forward_hook(lambda module, inputs, output: raw.append(output[0]))
        with torch.no_grad():
            seen = [noise_prediction(host, x, sigma, texts) for texts in (conds, unconds)]
        hook.remove()
        e_forget = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        batch = Batch(x, x, sigma, conds, conds, {"e_cond": seen[0], "e_uncond": seen[1]})
        loss = Esd(eta=1.0).loss(Step(batch, e_forget, None, None))

        target = 2 * raw[1] - raw[0]
        s = 0.7
        if isinstance(host, Flux):
            target = host.pipeline._unpack_latents(target, 64, 64, 8)
        if isinstance(host, StableDiffusion) and host.prediction_type == "v_prediction":
            # alpha = 1 / sqrt(s^2 + 1) and sigma = s alpha: noise = sigma x_in + alpha v at x_in = alpha x
            alpha = (s**2 + 1) ** -0.5
            target = s * alpha * (alpha * x) + alpha * target
        torch.testing.assert_close(loss, ((e_forget - target) ** 2).mean(), rtol=1e-5, atol=0)

    def test_checkpointing_keeps_less_and_gives_the_same_gradient(self, comfy_model: Any) -> None:
        deltas = new_deltas(comfy_model, SETTINGS)
        plain = needed(comfy_model, Ovw(), deltas, SETTINGS)
        expected = gradients(comfy_model, Esd())
        comfy_model.backward.checkpointing = True
        assert needed(comfy_model, Ovw(), deltas, SETTINGS).activations < plain.activations / 2
        for name, gradient in gradients(comfy_model, Esd()).items():
            torch.testing.assert_close(
                gradient, expected[name], rtol=1e-4, atol=1e-4 * float(expected[name].abs().max())
            )

    def test_memory_is_that_of_the_latents_at_a_time(self, comfy_model: Any) -> None:
        deltas = new_deltas(comfy_model, SETTINGS)
        batches = (replace(SETTINGS, batch_size=4, micro_batch=1), replace(SETTINGS, batch_size=1))
        in_parts, single = (needed(comfy_model, Ovw(), deltas, settings) for settings in batches)
        assert in_parts == single

    def test_memory_of_large_latents_is_foretold(self, comfy_model: Any) -> None:
        settings = replace(SETTINGS, width=256, height=192, batch_size=3)
        deltas = new_deltas(comfy_model, settings)
        foretold = needed(comfy_model, Esd(), deltas, settings)
        with comfy_model.attach(deltas):
            kept = kept_bytes(comfy_model, 256, 192, 3)
        assert foretold.activations == pytest.approx(kept, rel=0.15)
        assert foretold.training == 16 * sum(delta.get_parameter("diff").numel() for delta in deltas.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_training_on_a_base_of_lower_precision(pack: Pack, comfyui_path: Path, dtype: torch.dtype) -> None:
    """A closed form gives nearly what it gives on the float32 base; training gives something."""
    import comfy.sd

    host = host_of(pipelines.make_pipeline("flux", comfyui_path))
    with torch.inference_mode():
        weights = {name: weight.clone() for name, weight in host.denoiser.state_dict().items()}
        model = comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": dtype})
    closed = replace(SETTINGS, weights="text_projections")
    expected = unlearn(host, METHODS["uce"](), PROMPTS, closed).changes()
    with comfy_host(pack, model, host) as opened:
        assert {weight.dtype for weight in opened.weights().values()} == {dtype}
        solved = unlearn(opened, METHODS["uce"](), PROMPTS, closed).changes()
        trained = short_patch(opened, "esd", 0).changes()
    for name, change in expected.items():
        assert (solved[name] - change).norm() < 0.15 * change.norm(), name
    assert all(change.isfinite().all() and change.any() for change in trained.values())


def test_zero_terminal_snr_has_comfyuis_levels(pack: Pack, comfyui_path: Path) -> None:
    import comfy.model_sampling

    pipeline = pipelines.make_pipeline("sd21", comfyui_path)
    levels = comfy.model_sampling.rescale_zero_terminal_snr_sigmas(host_of(pipeline).training_sigmas)
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, rescale_betas_zero_snr=True)
    ours = host_of(pipeline).training_sigmas
    torch.testing.assert_close(ours, levels, rtol=1e-3, atol=0)
    assert ours[-1] == levels[-1]


def test_single_file_is_what_comfyui_loads(pack: Pack, comfyui_path: Path, tmp_path: Path) -> None:
    """One checkpoint, read by either's own code with its text encoder: the same names, weights and predictions."""
    import comfy.sd

    checkpoints.write_checkpoint("sd15", tmp_path / "sd15.safetensors")
    pipelines.write_sd15_config(tmp_path / "config", comfyui_path)
    host = load(tmp_path / "sd15.safetensors", config=tmp_path / "config")
    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(tmp_path / "sd15.safetensors"))
    with pack("nodes.host.private").private_copy(model) as private:
        opened = pack("nodes.host.model").ComfyModel(private, clip)
        ours, theirs = opened.weights(), host.weights()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name].flatten(), theirs[name].flatten()) for name in ours)
        torch.testing.assert_close(predicted(opened, host), predicted(host, host), rtol=1e-4, atol=1e-4)


def test_single_file_without_its_configuration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    checkpoints.save(tmp_path / "some.safetensors", {"model.diffusion_model.time_embed.0.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"model some\.safetensors: the configuration of .* cannot be read on this"):
        load(tmp_path / "some.safetensors")
