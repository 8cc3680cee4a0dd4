"""The networks that look at pictures, from ComfyUI's model folders and on its device."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import comfy.model_management
import torch

from .checks import Inputs
from .folders import model_folders

if TYPE_CHECKING:
    from ...unlearning_core.metrics.clip import Clip
    from ...unlearning_core.metrics.lpips import Lpips
    from ...unlearning_core.metrics.quality import Networks


def check_lpips(backbone: str) -> None:
    """Raises FileNotFoundError when a backbone's weights are neither here nor to be had, ValueError when damaged."""
    from ...unlearning_core.metrics.backbones import check_available

    check_available(backbone, model_folders("lpips"))


def check_clip(text: str) -> None:
    """Raises ValueError for text that names no open_clip model, FileNotFoundError for missing files."""
    from ...unlearning_core.metrics.clip import clip_named

    clip_named(text, model_folders("open_clip"))


def check_networks(inputs: Inputs) -> None:
    """Raises what `load_networks` would for the inputs `clip_model` and `fid`, where they are not linked."""
    from ...unlearning_core.metrics.inception import check_inception

    if "clip_model" in inputs:
        check_clip(inputs["clip_model"])
    if inputs.get("fid"):
        check_inception(model_folders("inception"))
    check_lpips("alex")


def load_lpips(backbone: str) -> Lpips:
    """LPIPS on a backbone. Raises as `check_lpips`."""
    from ...unlearning_core.metrics.lpips import Lpips

    return Lpips(backbone, model_folders("lpips"), _device())


def load_open_clip(text: str) -> Clip:
    """The model, for which other models leave the device when it needs room. Raises as `check_clip` and `Clip` do."""
    from ...unlearning_core.metrics.clip import clip_named

    make_room = partial(comfy.model_management.free_memory, device=_device())
    return clip_named(text, model_folders("open_clip"))(_device(), make_room)


def load_networks(clip_model: str, fid: bool) -> Networks:
    """For CLIPScore and Fréchet distances. Raises FileNotFoundError for missing weights, ValueError if damaged."""
    from ...unlearning_core.metrics.inception import Fid
    from ...unlearning_core.metrics.quality import Networks

    inception = Fid(model_folders("inception"), _device()) if fid else None
    return Networks(load_lpips("alex"), load_open_clip(clip_model), inception)


def _device() -> torch.device:
    return comfy.model_management.get_torch_device()
