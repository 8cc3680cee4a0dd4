"""Checkpoints of random weights, small but in the layout of each family, as the stock loaders detect them.

The denoisers are small; the text encoders of Stable Diffusion have one size only. FLUX comes in four files, whose
T5 needs the loader in `small_clip`, because the stock one builds 4.7 billion weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

NOISE = 1_000_003  # random numbers that all weights share; a prime, so that rows of a matrix differ
CLIP_L = "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight"  # what SD3's detection looks for
T5_CONFIG = {"d_model": 64, "d_ff": 64, "num_heads": 2, "d_kv": 32, "num_layers": 1}

_UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_heads": -1,
    "num_head_channels": 64,
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": True,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {
        **_UNET,
        "channel_mult": (1,),
        "num_res_blocks": [1],
        "transformer_depth": [1],
        "transformer_depth_output": [1, 1],
        "context_dim": 768,
        "num_heads": 8,
        "num_head_channels": -1,
        "use_linear_in_transformer": False,
    },
    "sd21": {  # four levels: ComfyUI knows v-prediction by a weight of the twelfth output block
        **_UNET,
        "channel_mult": (1, 1, 1, 1),
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 0, 0, 0, 0, 0, 0, 0],
        "transformer_depth_output": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        "context_dim": 1024,
    },
    "sdxl": {
        **_UNET,
        "channel_mult": (1, 1, 1),
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
        "context_dim": 2048,
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
    "sd3": {
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "depth": 2,
        "input_size": None,
        "adm_in_channels": 2048,
        "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}},
        "num_patches": 576,
        "pos_embed_max_size": 24,
        "pos_embed_scaling_factor": None,
        "qk_norm": "rms",
        "x_block_self_attn_layers": [0],
    },
    "flux": {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "hidden_size": 256,
        "num_heads": 2,
        "axes_dim": [16, 56, 56],
        "mlp_ratio": 4.0,
        "theta": 10000,
        "qkv_bias": True,
        "txt_ids_dims": [],
        "context_in_dim": T5_CONFIG["d_model"],
        "vec_in_dim": 768,
        "depth": 1,
        "depth_single_blocks": 1,
        "guidance_embed": True,
    },
}


def write_checkpoint(family: str, path: Path) -> None:
    """Writes `family`, one of UNETS without FLUX, for CheckpointLoaderSimple."""
    config = model_config(family)
    clip = config.clip_target({CLIP_L: None}).clip(device="meta", dtype=torch.float16)
    weights = random_weights(denoiser(config), 0), random_weights(clip, 1), random_weights(autoencoder(family), 2)
    unet, clip_weights, vae = map(dict, weights)
    save(
        path,
        config.process_unet_state_dict_for_saving(unet)
        | config.process_clip_state_dict_for_saving(clip_weights)
        | config.process_vae_state_dict_for_saving(vae),
    )


def write_flux(models: Path) -> None:
    """Writes flux.safetensors into the folders of UNETLoader and VAELoader, and clip_l and t5 into text_encoders."""
    from comfy.sd1_clip import SDClipModel
    from comfy.text_encoders.sd3_clip import T5XXLModel

    options = {"t5xxl_model_config": T5_CONFIG}
    parts = {
        "diffusion_models/flux": denoiser(model_config("flux")),
        "vae/flux": autoencoder("flux"),
        "text_encoders/clip_l": SDClipModel(device="meta", dtype=torch.float16).transformer,
        "text_encoders/t5": T5XXLModel(device="meta", dtype=torch.float16, model_options=options).transformer,
    }
    for seed, (name, part) in enumerate(parts.items()):
        save(models / f"{name}.safetensors", dict(random_weights(part, seed)))


def model_config(family: str) -> Any:
    """ComfyUI's own description of a family, found by its detection."""
    from comfy.model_detection import model_config_from_unet_config

    config = model_config_from_unet_config(dict(UNETS[family]))
    config.set_inference_dtype(torch.float16, None)
    return config


def denoiser(config: Any) -> nn.Module:
    """The network without weights."""
    network: nn.Module = config.get_model({}, device="meta").diffusion_model
    return network


def autoencoder(family: str) -> nn.Module:
    """The VAE without weights."""
    from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine

    modern = family in ("sd3", "flux")
    options: dict[str, Any] = {"double_z": True, "z_channels": 16 if modern else 4, "resolution": 256}
    options |= {"in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2}
    options |= {"attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        if not modern:
            return AutoencoderKL(ddconfig=options, embed_dim=4)
        place = "comfy.ldm.modules.diffusionmodules.model"
        return AutoencodingEngine(
            encoder_config={"target": f"{place}.Encoder", "params": options},
            decoder_config={"target": f"{place}.Decoder", "params": options},
            regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        )


def random_weights(part: nn.Module, seed: int) -> Iterator[tuple[str, Tensor]]:
    """fp16 weights at which signals neither vanish nor explode."""
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(seed)).half()
    for name, weight in part.state_dict().items():
        if not weight.is_floating_point():
            yield name, torch.arange(weight.numel()).expand(weight.shape).to(weight.dtype)
            continue
        noise = noise.roll(weight.numel())
        values = noise.repeat(-(-weight.numel() // NOISE))[: weight.numel()].view(weight.shape)
        if weight.ndim < 2:
            yield name, (1 if name.endswith(("weight", "scale")) else 0) + 0.12 * values
        else:
            yield name, values / weight[0].numel() ** 0.5


def save(path: Path, weights: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path)
