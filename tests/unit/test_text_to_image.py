"""Pipelines without a host of their own: prompts, patches and pictures, and which ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pipelines
import pytest
import torch
from standins import Encoder, Tokenizer
from text_to_image import COUNTERPARTS, WIDTH, flow

from unlearning_core.hosts.families import host_of
from unlearning_core.hosts.pictures import draw
from unlearning_core.hosts.text_to_image import TextToImage
from unlearning_core.methods import METHODS
from unlearning_core.patch import UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.sampling import Sampling
from unlearning_core.selections import selections_of
from unlearning_core.settings import Settings
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face",), ("a dog",), ("a red car in a garden",))
TEXTS = ["a cat face", "a red car in a garden", ""]


def make_sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        mlp_ratio=1,
    )
    blocks = 6
    parts = {
        "block_types": ("ResBlock",) * blocks,
        "block_out_channels": (16,) * blocks,
        "layers_per_block": (1,) * blocks,
        "qkv_multiscales": ((),) * blocks,
    }
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in parts.items()}
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    vae = diffusers.AutoencoderDC(latent_channels=4, attention_head_dim=16, **both)
    return diffusers.SanaPipeline(Tokenizer(), Encoder(WIDTH), vae, transformer, scheduler)


def make_random(family: str) -> Any:
    torch.manual_seed(0)
    if family == "sana":
        return make_sana()
    return COUNTERPARTS[family].pipeline(COUNTERPARTS[family].transformer())


@pytest.fixture(scope="module")
def host(family: str) -> TextToImage:
    host = host_of(make_random(family))
    assert isinstance(host, TextToImage)
    for parameter in host.denoiser.parameters():
        if parameter.ndim >= 2:
            parameter.data *= 3**0.5  # PyTorch's own weights damp signals by that much a layer
    return host


def side(family: str) -> int:
    return COUNTERPARTS[family].side if family in COUNTERPARTS else 64


def wan(family: Callable[[str], Any]) -> Any:
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, text_dim=WIDTH, freq_dim=32, ffn_dim=32, num_layers=1
    )
    return diffusers.WanPipeline(Tokenizer(), Encoder(WIDTH), vae, flow(3.0), transformer)


def ddpm(family: Callable[[str], Any]) -> Any:
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    return diffusers.DDPMPipeline(
        diffusers.UNet2DModel(sample_size=8, block_out_channels=(32,), **blocks), diffusers.DDPMScheduler()
    )


def of_pictures(family: Callable[[str], Any]) -> Any:
    return diffusers.QwenImageImg2ImgPipeline(**family("qwen_image").components)


def of_edits(family: Callable[[str], Any]) -> Any:
    return diffusers.QwenImageEditPipeline(**family("qwen_image").components, processor=Tokenizer())


class Guided(diffusers.Flux2KleinPipeline):  # type: ignore[misc]
    do_classifier_free_guidance = True


def guided(family: Callable[[str], Any]) -> Any:
    return Guided(**family("flux2_klein").components)


class Asking(diffusers.Lumina2Pipeline):  # type: ignore[misc]
    do_classifier_free_guidance = True


def asking(family: Callable[[str], Any]) -> Any:
    return Asking(**family("lumina2").components)


def not_reordered(family: Callable[[str], Any]) -> Any:
    class Doubled(diffusers.ZImagePipeline):  # type: ignore[misc]
        def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
            return 2 * super().prepare_latents(*args, **kwargs)

    return Doubled(**family("z_image").components)


def without_vae(family: Callable[[str], Any]) -> Any:
    pipeline = family("z_image")
    pipeline.vae = None
    return pipeline


def on_one_scheduler(family: Callable[[str], Any]) -> Any:
    pipeline = family("z_image")
    pipeline.scheduler = diffusers.EDMEulerScheduler()
    return pipeline


REFUSED: dict[Callable[[Callable[[str], Any]], Any], str] = {
    wan: "WanPipeline cannot be trained .it makes videos.; use a text-to-image pipeline",
    ddpm: "DDPMPipeline cannot be trained .its __call__ takes no prompt.; use a text-to-image pipeline",
    of_pictures: "QwenImageImg2ImgPipeline cannot be trained .drawing from a prompt alone fails: Input is .*; use a",
    of_edits: "QwenImageEditPipeline cannot be trained .drawing from a prompt alone fails: .*; use a",
    guided: "Guided cannot be trained .*called 2 times for one prediction.*; use a text-to-image pipeline",
    asking: "Asking cannot be trained .*guidance cannot be turned off.*; use a text-to-image pipeline",
    not_reordered: "Doubled cannot be trained .*its latents are no reordered noise",
    without_vae: "its pipeline has no vae; load a pipeline that is whole",
    on_one_scheduler: "scheduler EDMEulerScheduler is not set up for flow matching from noise; give the pipe",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_others_are_refused_in_one_line(make: Callable[[Callable[[str], Any]], Any]) -> None:
    with pytest.raises(ValueError, match=f"^model: {REFUSED[make]}") as caught:
        host_of(make(make_random))
    assert "\n" not in str(caught.value)


def test_img2img_of_a_family_with_a_host_is_refused(comfyui_path: Path) -> None:
    parts = pipelines.make_pipeline("sd15", comfyui_path).components
    with pytest.raises(ValueError, match=r"StableDiffusionImg2ImgPipeline cannot be trained \(its __call__ takes no"):
        host_of(diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False))


def test_weights_that_get_no_gradient_are_refused_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    host = host_of(make_random("qwen_image"))
    host.denoiser.txt_in.register_forward_hook(lambda layer, inputs, output: output.detach())
    monkeypatch.setattr("unlearning_core.unlearn.make_bank", None)  # what would begin the work
    settings = Settings(width=64, height=64, weights="text_projections")
    with pytest.raises(
        ValueError, match=r"^weights: no gradient passes to transformer.txt_in.weight, .*; choose other"
    ):
        unlearn(host, METHODS["ovw"](), PROMPTS, settings)


def test_a_name_alone_makes_no_text_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the layer of that name reads the picture too."""
    monkeypatch.setattr("unlearning_core.selections._reads", {})  # of other networks of this architecture
    host = host_of(make_random("qwen_image"))
    named = host.denoiser.txt_in
    host.denoiser.img_in.register_forward_hook(lambda layer, inputs, output: vars(named).update(seen=output.mean()))
    named.register_forward_pre_hook(lambda layer, inputs: (inputs[0] + named.seen,))
    assert selections_of(host, (64, 64)).matching("text_projections") == []


def test_prompts_that_pipelines_encode_in_parts() -> None:
    """Hunyuan-DiT asks each of its encoders by itself."""
    transformer = diffusers.HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=4,
        hidden_size=128,
        num_layers=2,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        patch_size=2,
        sample_size=32,
    )
    host = host_of(
        diffusers.HunyuanDiTPipeline(
            pipelines.vae(4),
            Encoder(WIDTH),
            Tokenizer(),
            transformer,
            diffusers.DDPMScheduler(prediction_type="v_prediction"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            text_encoder_2=Encoder(WIDTH),
            tokenizer_2=Tokenizer(),
        )
    )
    [[first, second]] = host.encode(["a cat"])
    assert first[0].shape != second[0].shape
    assert draw(host, [("a cat", 0)], Sampling(steps=1, width=64, height=64)).shape == (1, 64, 64, 3)


FAMILIES = [name for name in COUNTERPARTS if name != "pixart_alpha"] + ["sana"]


@pytest.mark.parametrize("family", FAMILIES, scope="module")
class TestTextToImage:
    def test_rows_predict_as_alone(self, host: TextToImage, family: str) -> None:
        """Whatever their noise levels and the sizes of their conditionings."""
        conds = host.encode(TEXTS)
        assert len(conds) == len(TEXTS)
        x, sigma = host.noise([0, 1, 2], side(family), side(family)), host.sigmas(4)[[1, 2, 1]]
        with torch.no_grad():
            together = host.predict_x0(x, sigma, conds)
            alone = [host.predict_x0(*row) for row in zip(x.split(1), sigma.split(1), zip(conds), strict=True)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("method", ["uce", "ovw"])
    def test_methods_make_patches(self, host: TextToImage, family: str, method: str) -> None:
        settings = Settings(
            steps=2,
            width=side(family),
            height=side(family),
            batch_size=2,
            runs=1,
            run_steps=2,
            weights=METHODS[method].weights,
        )
        before = {name: weight.clone() for name, weight in host.weights().items()}
        attributes = set(vars(host.pipeline))
        patch = unlearn(host, METHODS[method](), PROMPTS, settings)
        assert isinstance(patch, UnlearningPatch)
        assert all(change.isfinite().all() for change in patch.changes().values())
        assert all(torch.equal(weight, before[name]) for name, weight in host.weights().items())
        assert set(vars(host.pipeline)) == attributes

    def test_pictures(self, host: TextToImage, family: str) -> None:
        size = {"width": side(family), "height": side(family) // 2 or 32}
        pictures = draw(host, [("a cat", 0), ("a dog", 1)], replace(Sampling(steps=2), **size))
        assert pictures.shape == (2, size["height"], size["width"], 3)
        assert pictures.isfinite().all() and pictures.min() >= 0 and pictures.max() <= 1
        assert not torch.equal(pictures[0], pictures[1])

    def test_long_prompts_are_refused(self, host: TextToImage, family: str) -> None:
        with pytest.raises(ValueError, match=r"^prompt 'cat .*tokens, and the text encoder reads \d+ at most"):
            host.encode(["cat " * 1000])
