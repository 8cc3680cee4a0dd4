"""diffusers pipelines from folders and single files, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def load_pipeline(path: Path, dtype: torch.dtype, config: Path | str | None = None) -> DiffusionPipeline:
    """The pipeline of a diffusers folder, or of a safetensors file and the configuration of its family.

    Raises ValueError when there is no such folder or file, or a file's configuration is not on this machine.
    """
    import diffusers

    if not path.exists():
        raise ValueError(f"model {path}: not found; name a diffusers folder or a safetensors file")
    source = path if path.is_dir() else config or _family_of(path)
    try:
        name = diffusers.DiffusionPipeline.load_config(source, local_files_only=True)["_class_name"]
    except OSError as error:
        raise ValueError(
            f"model {path.name}: the configuration of {source} is not on this machine; name a diffusers folder of the "
            "same family as its config"
        ) from error
    pipeline_class: Any = getattr(diffusers, name)
    options: dict[str, Any] = {"local_files_only": True}
    if name == "StableDiffusionPipeline":
        options |= {"safety_checker": None, "requires_safety_checker": False}
    if path.is_dir():
        return pipeline_class.from_pretrained(path, dtype=dtype, **options)
    return pipeline_class.from_single_file(str(path), config=str(source), torch_dtype=dtype, **options)


def _family_of(file: Path) -> str:
    """The name of the pipeline whose configuration diffusers would use for a checkpoint."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        name: str = fetch_diffusers_config(load_file(file))["pretrained_model_name_or_path"]
    except SafetensorError as error:
        raise ValueError(f"model {file.name}: this is not a safetensors file, or it was cut short ({error})") from error
    return name
