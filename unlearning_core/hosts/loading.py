"""diffusers pipelines from folders, single files and Hugging Face; no pickle is ever opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load_pipeline(model: Path | str, dtype: torch.dtype, config: Path | str | None = None) -> DiffusionPipeline:
    """The pipeline of a diffusers folder or name, or of a safetensors file and the configuration of its family.

    Raises ValueError when there is no such model, a file's configuration is not on this machine, or weights are in
    another format than safetensors.
    """
    path = Path(model)
    if path.is_file():
        return _of_file(path, dtype, config)
    if path.is_dir():
        return _of_folder(path, dtype, local_files_only=True)
    if not HUB_NAME.fullmatch(str(model)):
        raise ValueError(f"model {model}: not found; name a diffusers folder or a safetensors file")
    return _of_folder(str(model), dtype, local_files_only=False)


def _of_folder(source: Path | str, dtype: torch.dtype, local_files_only: bool) -> DiffusionPipeline:
    """From a folder, or a name on Hugging Face."""
    import diffusers

    options = {"local_files_only": local_files_only}
    try:
        family = diffusers.DiffusionPipeline.load_config(source, **options)["_class_name"]
        options |= {"use_safetensors": True, **_without_checker(family)}
        pipeline = getattr(diffusers, family).from_pretrained(source, dtype=dtype, **options)
    except OSError as error:
        raise ValueError(
            f"model {source}: it cannot be loaded as a diffusers folder of safetensors files ({error})"
        ) from error

    # Older versions of diffusers call it torch_dtype, and load in float32.
    return pipeline if pipeline.dtype == dtype else pipeline.to(dtype)


def _of_file(file: Path, dtype: torch.dtype, config: Path | str | None) -> DiffusionPipeline:
    import diffusers
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"model {file.name}: this is not a safetensors file, or it was cut short ({error})") from error
    source = config or _family_of(file)
    try:
        family = diffusers.DiffusionPipeline.load_config(source, local_files_only=True)["_class_name"]
    except OSError as error:
        raise ValueError(
            f"model {file.name}: the configuration of {source} is not on this machine; name a diffusers folder of the "
            "same family as its config"
        ) from error
    options = {"local_files_only": True, **_without_checker(family)}
    pipeline_class: Any = getattr(diffusers, family)
    return pipeline_class.from_single_file(str(file), config=str(source), torch_dtype=dtype, **options)


def _without_checker(family: str) -> dict[str, Any]:
    """What keeps Stable Diffusion's pipeline from loading its safety checker."""
    checked = family == "StableDiffusionPipeline"
    return {"safety_checker": None, "requires_safety_checker": False} if checked else {}


def _family_of(file: Path) -> str:
    """The name of the pipeline whose configuration diffusers would use for a checkpoint."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from safetensors.torch import load_file

    name: str = fetch_diffusers_config(load_file(file))["pretrained_model_name_or_path"]
    return name
