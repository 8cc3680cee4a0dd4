"""What several subcommands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

MODEL_HELP = "diffusers folder, safetensors file, or a name on Hugging Face such as owner/model"
PRECISIONS = ("float32", "bfloat16")  # gradients underflow in float16
DEVICE_HELP = "without it cuda where that is available, else cpu"


def device_of(args: argparse.Namespace) -> str:
    """Where to compute."""
    import torch

    device: str = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return device


def check_patch_file(path: Path) -> None:
    """Raises ValueError when a patch cannot be written there, or ComfyUI would not list it."""
    if path.is_dir() or path.suffix != ".safetensors":
        raise ValueError(f"{path}: no name for a patch; write one that ends in .safetensors")
