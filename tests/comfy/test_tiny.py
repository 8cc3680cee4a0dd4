"""The shipped model gives the same numbers in ComfyUI as in diffusers, and stock nodes take it."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from unlearning_core.tiny import MODEL

PACK = Path(__file__).parents[2]
KEY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"  # 128 -> 64


@pytest.fixture(scope="module")
def tiny(pack: Callable[[str], ModuleType]) -> ModuleType:
    return pack("nodes.host.tiny")


@pytest.fixture(scope="module")
def vae(tiny: ModuleType) -> Any:
    return tiny.load_vae(MODEL)


@pytest.mark.parametrize("timestep", [0, 250, 600, 999])
@torch.no_grad()
def test_noise_prediction(model: Any, timestep: int) -> None:
    unet = UNet2DConditionModel.from_pretrained(MODEL / "unet", torch_dtype=torch.float32)
    alpha_squared = DDPMScheduler.from_pretrained(MODEL / "scheduler").alphas_cumprod[timestep]
    alpha, beta = alpha_squared.sqrt(), (1 - alpha_squared).sqrt()
    generator = torch.Generator().manual_seed(timestep)
    x_t = torch.randn(2, 4, 16, 16, generator=generator)
    cond = torch.randn(2, 16, 128, generator=generator)
    v = unet(x_t, timestep, cond).sample

    import comfy.model_management

    comfy.model_management.load_models_gpu([model])  # else patches of its clones may still be in the weights
    sigma = model.model.model_sampling.sigmas[timestep]
    x = x_t / alpha
    x0 = model.model.apply_model(x, sigma.expand(2), c_crossattn=cond)

    assert model.model.get_dtype() == torch.float32
    torch.testing.assert_close(sigma, beta / alpha, rtol=1e-4, atol=0)
    torch.testing.assert_close((x - x0) / sigma, alpha * v + beta * x_t, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prompt", ["", "a frog", "a cat face in noto style", "an owl, drawn in 1999"])
@torch.no_grad()
def test_text_encoder(clip: Any, prompt: str) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(MODEL / "text_encoder").float()
    tokens = tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
    expected = encoder(tokens)

    cond, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)

    assert [token for token, _ in clip.tokenize(prompt)["l"][0]] == tokens[0].tolist()
    torch.testing.assert_close(cond[:, : tokenizer.model_max_length], expected.last_hidden_state, rtol=0, atol=1e-4)
    torch.testing.assert_close(pooled, expected.pooler_output, rtol=0, atol=1e-4)


@torch.no_grad()
def test_autoencoder(vae: Any) -> None:
    reference = AutoencoderTiny.from_pretrained(MODEL / "vae", torch_dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(2, 128, 96, 3, generator=generator)
    latent = torch.randn(2, 4, 16, 12, generator=generator)

    encoded = reference.encode(picture.movedim(-1, 1) * 2 - 1).latents
    decoded = (reference.decode(latent).sample.movedim(1, -1) + 1) / 2

    torch.testing.assert_close(vae.encode(picture), encoded, rtol=0, atol=1e-4)
    torch.testing.assert_close(vae.decode(latent), decoded.clamp(0, 1), rtol=0, atol=1e-4)


def test_private_copy_has_its_own_weights(model: Any) -> None:
    if "force_deepcopy" not in inspect.signature(type(model).clone).parameters:
        pytest.skip("this ComfyUI has no clone(force_deepcopy=True)")
    shared = {key: weight.clone() for key, weight in model.model.state_dict().items()}

    private = model.clone(force_deepcopy=True)
    with torch.no_grad():
        for weight in private.model.parameters():
            weight.zero_()

    assert all(torch.equal(weight, shared[key]) for key, weight in model.model.state_dict().items())


def test_every_module_has_its_diffusers_lora_name(model: Any, clip: Any) -> None:
    from comfy.lora import model_lora_keys_clip, model_lora_keys_unet

    weights = load_file(MODEL / "unet" / "diffusion_pytorch_model.safetensors")
    modules = {key.removesuffix(".weight") for key in weights if key.endswith(".weight")}

    lora_names = model_lora_keys_unet(model.model, {})
    assert {f"lora_unet_{module.replace('.', '_')}" for module in modules} <= lora_names.keys()
    assert "lora_te_text_model_encoder_layers_1_self_attn_q_proj" in model_lora_keys_clip(clip.cond_stage_model, {})


def test_stock_lora_loader(model: Any, clip: Any) -> None:
    from comfy.lora import model_lora_keys_unet
    from comfy.sd import load_lora_for_models

    name = f"lora_unet_{KEY.replace('.', '_')}"
    key = model_lora_keys_unet(model.model, {})[name]
    up, down = torch.randn(64, 4), torch.randn(4, 128)
    lora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}

    patched, _ = load_lora_for_models(model, clip, lora, 0.5, 0.0)

    expected = model.model.state_dict()[key] + 0.5 * up @ down
    torch.testing.assert_close(patched.patch_weight_to_device(key, return_weight=True), expected)


def test_stock_nodes(server: Any, run_prompt: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Pictures of two prompts with one seed, and one of them sampled on from its own encoding."""
    entry = run_prompt(
        {
            "load": node("LoadTinyT2I"),
            "frog": node("CLIPTextEncode", clip=["load", 1], text="a frog in noto style"),
            "car": node("CLIPTextEncode", clip=["load", 1], text="a car in noto style"),
            "empty": node("CLIPTextEncode", clip=["load", 1], text=""),
            "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
            **sampled("frog", "latent"),
            **sampled("car", "latent"),
            "encoded": node("VAEEncode", pixels=["frog decoded", 0], vae=["load", 2]),
            **sampled("empty", "encoded", denoise=0.5),
        }
    )

    frog, car, again = (picture(server, entry, f"{name} saved") for name in ("frog", "car", "empty"))
    assert frog.shape == car.shape == again.shape == (128, 128, 3)
    assert frog.std() > 1 / 255
    assert not torch.equal(frog, car)
    assert not torch.equal(frog, again)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def sampled(positive: str, latent: str, denoise: float = 1.0) -> dict[str, Any]:
    """Nodes that sample under the prompt node `positive`, decode and save."""
    return {
        f"{positive} sampled": node(
            "KSampler",
            model=["load", 0],
            positive=[positive, 0],
            negative=["empty", 0],
            latent_image=[latent, 0],
            seed=1,
            steps=4,
            cfg=3.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=denoise,
        ),
        f"{positive} decoded": node("VAEDecode", samples=[f"{positive} sampled", 0], vae=["load", 2]),
        f"{positive} saved": node("SaveImage", images=[f"{positive} decoded", 0], filename_prefix="tiny"),
    }


def picture(server: Any, entry: dict[str, Any], node_id: str) -> torch.Tensor:
    """The picture [H, W, 3] in 0..1 that a SaveImage node put out."""
    content = server.download(entry["outputs"][node_id]["images"][0])
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)))) / 255
