"""The pack inside this process, beside ComfyUI's modules on the CPU, for what a server does not show."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

PACK = Path(__file__).parents[2]
MODEL = PACK / "unlearning_core" / "tiny" / "model"


@pytest.fixture(scope="session")
def pack(comfyui_path: Path) -> Callable[[str], ModuleType]:
    """Imports a module of the pack by its path in it, the way ComfyUI imports a pack."""
    sys.path.append(str(comfyui_path))
    from comfy.cli_args import args

    args.cpu = True
    spec = importlib.util.spec_from_file_location("comfyui_unlearning", PACK / "__init__.py")
    assert spec and spec.loader
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    return lambda name: importlib.import_module(f"comfyui_unlearning.{name}")


@pytest.fixture(scope="session")
def model(pack: Callable[[str], ModuleType]) -> Any:
    """The shipped model's MODEL, loaded as ComfyUI's executor loads it."""
    with torch.inference_mode():
        return pack("nodes.tiny").load_model(MODEL)


@pytest.fixture(scope="session")
def clip(pack: Callable[[str], ModuleType]) -> Any:
    with torch.inference_mode():
        return pack("nodes.tiny").load_clip(MODEL)


@pytest.fixture(scope="session")
def write_sd15(pack: Callable[[str], ModuleType]) -> Callable[[Path], None]:
    """Writes an SD1.5-shaped checkpoint of random weights: one level and block in the U-Net, full CLIP-L and VAE."""
    return _write_sd15


def _write_sd15(path: Path) -> None:
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.model_detection import model_config_from_unet_config
    from comfy.ops import disable_weight_init
    from comfy.sd1_clip import SD1CheckpointClipModel

    unet = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "channel_mult": (1,),
        "num_res_blocks": [1],
        "transformer_depth": [1],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1],
        "context_dim": 768,
        "num_heads": 8,
        "num_head_channels": -1,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
    }
    assert type(model_config_from_unet_config(unet)).__name__ == "SD15"
    vae = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
    vae |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {
            "model.diffusion_model": UNetModel(**unet, operations=disable_weight_init, device="meta"),
            "first_stage_model": AutoencoderKL(ddconfig=vae, embed_dim=4),
            "cond_stage_model": SD1CheckpointClipModel(device="meta", dtype=torch.float16),
        }
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"{prefix}.{name}": 0.02 * torch.randn(weight.shape, generator=generator)
        for prefix, part in parts.items()
        for name, weight in part.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.half() for name, weight in weights.items()}, path)
