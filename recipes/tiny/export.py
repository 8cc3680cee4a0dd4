"""The trained networks as a diffusers pipeline folder in fp16."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer


def save_pipeline(
    folder: Path,
    vae: AutoencoderTiny,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDPMScheduler,
) -> None:
    """Writes the folder."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    _also_for_transformers_4(folder, tokenizer)


def _also_for_transformers_4(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """transformers 5 leaves out two tokenizer files and a prefix of the weights, which 4 needs and 5 accepts."""
    tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
    path = folder / "text_encoder" / "model.safetensors"
    weights = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
