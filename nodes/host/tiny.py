"""The shipped model's diffusers folder as ComfyUI's stock MODEL, CLIP and VAE."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import comfy.clip_model
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from torch import Tensor


class TinyLatents(comfy.latent_formats.LatentFormat):
    """Scale factor 1, with the colors that `python -m recipes.tiny.preview` finds, for ComfyUI's previews."""

    latent_rgb_factors: ClassVar[list[list[float]]] = [
        [-0.0940, 0.0680, 0.2627],
        [-0.0740, -0.0294, 0.0489],
        [-0.0599, 0.0796, 0.2523],
        [0.2682, 0.2616, 0.2120],
    ]
    latent_rgb_factors_bias: ClassVar[list[float]] = [0.6194, 0.4073, 0.1767]


class TinyT2I(comfy.supported_models_base.BASE):
    """The UNet's shape in ComfyUI's words. Stock model detection knows full-size UNets only."""

    unet_config: ClassVar[dict[str, Any]] = {
        "image_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 64,
        "channel_mult": [1, 1, 2],
        "num_res_blocks": [1, 1, 1],
        "transformer_depth": [0, 1, 1],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [0, 0, 1, 1, 1, 1],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "context_dim": 128,
        "adm_in_channels": None,
        "legacy": False,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }
    unet_extra_config: ClassVar[dict[str, Any]] = {"num_heads": -1, "num_head_channels": 32}
    latent_format = TinyLatents
    memory_usage_factor = 1.0

    def model_type(self, state_dict: dict[str, Tensor], prefix: str = "") -> comfy.model_base.ModelType:
        """v-prediction."""
        return comfy.model_base.ModelType.V_PREDICTION


def load_model(folder: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """MODEL from the diffusers folder's unet/, in the precision that ComfyUI picks for the device.

    `disable_dynamic` keeps the weights out of ComfyUI's dynamic VRAM, which a private copy for training needs.
    """
    management = comfy.model_management
    weights = load_weights(folder / "unet" / "diffusion_pytorch_model.safetensors")
    config = TinyT2I(TinyT2I.unet_config)
    load_device = management.get_torch_device()
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    config.set_inference_dtype(
        dtype, management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    )
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    weights = {names[key]: weight for key, weight in weights.items()}

    model = config.get_model(weights)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(model, load_device=load_device, offload_device=management.unet_offload_device())
    if not management.is_device_cpu(patcher.offload_device):
        model.to(patcher.offload_device)
    model.load_model_weights(weights, assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_model, (folder,))
    return patcher


def load_clip(folder: Path, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """CLIP from the diffusers folder's text_encoder/ and tokenizer/; `disable_dynamic` as for `load_model`."""
    weights = {  # transformers 4 writes the prefix, transformers 5 does not
        f"text_model.{key.removeprefix('text_model.')}": weight
        for key, weight in load_weights(folder / "text_encoder" / "model.safetensors").items()
    }
    width = weights["text_model.final_layer_norm.weight"].shape[0]
    weights["text_projection.weight"] = torch.eye(width)  # ComfyUI's class always projects, this encoder does not
    clip = comfy.sd.CLIP(
        clip_target(folder),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(weights),
        state_dict=[weights],
        disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (load_clip_patcher, (folder,))
    return clip


def load_clip_patcher(folder: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """What ComfyUI calls when it wants a fresh copy of CLIP's weights."""
    return load_clip(folder, disable_dynamic).patcher


def clip_target(folder: Path) -> comfy.supported_models_base.ClipTarget:
    """Stock tokenizer and text encoder classes at this model's sizes; "l" keeps SD1's LoRA and embedding names."""
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    tokenizer = partial(
        SDTokenizer,
        tokenizer_path=str(folder / "tokenizer"),
        max_length=config["max_position_embeddings"],
        embedding_size=config["hidden_size"],
    )
    encoder = partial(
        SDClipModel,
        max_length=config["max_position_embeddings"],
        textmodel_json_config=config,
        model_class=SmallVocabularyCLIP,
        special_tokens={
            "start": config["bos_token_id"],
            "end": config["eos_token_id"],
            "pad": config["pad_token_id"],
        },
        return_projected_pooled=False,
    )
    return comfy.supported_models_base.ClipTarget(
        partial(SD1Tokenizer, tokenizer=tokenizer), partial(SD1ClipModel, clip_model=encoder)
    )


class SmallVocabularyCLIP(comfy.clip_model.CLIPTextModel):
    """ComfyUI's CLIP text model with `vocab_size` tokens; the stock one always has 49408."""

    def __init__(self, config_dict: dict[str, Any], dtype: Any, device: Any, operations: Any) -> None:
        super().__init__(config_dict, dtype, device, operations)
        size = (config_dict["vocab_size"], config_dict["hidden_size"])
        self.set_input_embeddings(operations.Embedding(*size, dtype=dtype, device=device))


def load_vae(folder: Path) -> comfy.sd.VAE:
    """VAE from the diffusers folder's vae/ (AutoencoderTiny), under the names of ComfyUI's TAESD class."""
    weights = {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}
    for key, weight in load_weights(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        network, _, layer, rest = key.split(".", maxsplit=3)
        shift = 1 if network == "decoder" else 0  # ComfyUI counts the decoder's clamp as its first layer
        weights[f"taesd_{network}.{int(layer) + shift}.{rest}"] = weight
    return comfy.sd.VAE(sd=weights)


def load_weights(path: Path) -> dict[str, Tensor]:
    """A safetensors file's tensors on the CPU."""
    return comfy.utils.load_torch_file(str(path), safe_load=True)
