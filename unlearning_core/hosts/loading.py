"""diffusers pipelines from folders, single files and Hugging Face; no pickle is ever opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..probes import one_line

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load_pipeline(model: Path | str, dtype: torch.dtype, config: Path | str | None = None) -> DiffusionPipeline:
    """The pipeline of a diffusers folder or name, or of a safetensors file and the configuration of its family.

    Raises ValueError when there is no such model, it is damaged, a file's configuration is not on this machine, or
    weights are in another format than safetensors.
    """
    path = Path(model)
    if path.is_file():
        return _of_file(path, dtype, config)
    if path.is_dir():
        return _of_folder(path, dtype, local_files_only=True)
    if not HUB_NAME.fullmatch(str(model)):
        raise ValueError(f"model {model}: not found; name a diffusers folder or a safetensors file")
    return _of_folder(str(model), dtype, local_files_only=False)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raises ValueError, which says `what`, for whatever a loader raises about its files."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{what} ({one_line(error)})") from error


def _of_folder(source: Path | str, dtype: torch.dtype, local_files_only: bool) -> DiffusionPipeline:
    """From a folder, or a name on Hugging Face."""
    options = {"local_files_only": local_files_only}
    with _told(f"model {source}: it cannot be loaded as a diffusers folder of safetensors files"):
        index, pipeline_class = _index(source, local_files_only)
        options |= {"use_safetensors": True}
        encoders = _text_encoders(source, index, dtype, options)
        checker = _without_checker(pipeline_class.__name__)
        pipeline = pipeline_class.from_pretrained(source, dtype=dtype, **encoders, **checker, **options)
        _check_whole(pipeline)

    # Older versions of diffusers call it torch_dtype, and load in float32.
    return pipeline if pipeline.dtype == dtype else pipeline.to(dtype)


def _of_file(file: Path, dtype: torch.dtype, config: Path | str | None) -> DiffusionPipeline:
    from safetensors import safe_open

    with _told(f"model {file.name}: this is not a safetensors file, or it was cut short"):
        with safe_open(file, framework="pt"):
            pass
        source = config or _family_of(file)
    with _told(
        f"model {file.name}: the configuration of {source} cannot be read on this machine; name a diffusers folder of "
        "the same family as its config"
    ):
        _, pipeline_class = _index(source, local_files_only=True)
    options = {"local_files_only": True, **_without_checker(pipeline_class.__name__)}
    with _told(f"model {file.name}: it cannot be loaded as a checkpoint of the family of {source}"):
        pipeline: DiffusionPipeline = pipeline_class.from_single_file(
            str(file), config=str(source), torch_dtype=dtype, **options
        )
        _check_whole(pipeline)
    return pipeline


def _index(source: Path | str, local_files_only: bool) -> tuple[dict[str, Any], Any]:
    """What a folder's model_index.json says, and the pipeline's class. Raises ValueError when it names none."""
    import diffusers

    index = diffusers.DiffusionPipeline.load_config(source, local_files_only=local_files_only)
    name = index.get("_class_name") if isinstance(index, dict) else None
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)):
        raise ValueError(
            f"its model_index.json names {name!r}, which is no pipeline of diffusers {diffusers.__version__}"
        )
    return index, kind


def _text_encoders(
    source: Path | str, index: dict[str, Any], dtype: torch.dtype, options: dict[str, Any]
) -> dict[str, Any]:
    """The pipeline's networks from transformers, which gives random numbers to weights that a file lacks.

    Raises ValueError for such a file.
    """
    encoders = {}
    for name, entry in index.items():
        network = _transformer(entry)
        if network:
            encoders[name], found = network.from_pretrained(
                source, subfolder=name, torch_dtype=dtype, output_loading_info=True, **options
            )
            if found["missing_keys"]:
                raise ValueError(f"its {name} lacks {min(found['missing_keys'])}")
    return encoders


def _transformer(entry: Any) -> Any:
    """The network's class of an entry such as ["transformers", "CLIPTextModel"]; None for others."""
    import transformers

    library, name = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    kind = getattr(transformers, str(name), None) if library == "transformers" else None
    return kind if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel) else None


def _check_whole(pipeline: DiffusionPipeline) -> None:
    """Raises ValueError when a network lacks a weight: diffusers leaves it without a value."""
    for name, component in pipeline.components.items():
        weights = component.state_dict() if isinstance(component, nn.Module) else {}
        missing = next((key for key, weight in weights.items() if weight.is_meta), None)
        if missing:
            raise ValueError(f"its {name} lacks {missing}")


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
