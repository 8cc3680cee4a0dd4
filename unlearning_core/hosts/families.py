"""Which class hosts which diffusers pipeline, and models from where they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .base import DiffusersModel
from .flux import Flux
from .loading import load_pipeline
from .sd3 import StableDiffusion3
from .stable_diffusion import StableDiffusion, StableDiffusionXL
from .text_to_image import text_to_image

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

HOSTS: dict[str, type[DiffusersModel]] = {  # by the pipeline's class; others have what `text_to_image` gives
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}


def load(
    model: Path | str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    config: Path | str | None = None,
) -> DiffusersModel:
    """From a pipeline folder, a single safetensors file, or a name on Hugging Face such as `owner/model`.

    A file needs the configuration of its family: the pipeline folder `config`, or what diffusers has in its cache.
    Only a name downloads. Raises ValueError as `load_pipeline` and `host_of`.
    """
    return host_of(load_pipeline(model, dtype, config).to(device))


def host_of(pipeline: DiffusionPipeline) -> DiffusersModel:
    """The host of a loaded pipeline. Raises ValueError as `DiffusersModel` and `TextToImage`."""
    return HOSTS.get(type(pipeline).__name__, text_to_image)(pipeline)
