"""Inception features for FID (Heusel et al. 2017, arXiv 1706.08500), through torchmetrics, on weights that are here."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..files import read_checked
from .plan import batches

CHECKPOINT = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's port of the original network


class InceptionNotFound(FileNotFoundError):
    """The weights are in none of the places looked at."""


class Fid:
    """The Inception network of torchmetrics' FID; never an estimate on other features."""

    def __init__(self, folders: Sequence[Path] = (), device: str | torch.device = "cpu") -> None:
        """Raises InceptionNotFound, and ValueError for a damaged file; nothing is downloaded."""
        from torchmetrics.image.fid import FrechetInceptionDistance

        path = _checked(find_inception(folders), folders)
        self._device = torch.device(device)
        self._network = FrechetInceptionDistance(feature_extractor_weights_path=str(path)).inception.to(device)

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """[B, H, W, 3] in 0..1 -> [B, 2048] on the CPU, whose `frechet_distance` is FID."""
        levels = ((batch * 255).byte().permute(0, 3, 1, 2) for batch in batches(pictures))  # as torchmetrics does
        return torch.cat([self._network(batch.to(self._device)).cpu() for batch in levels])


def check_inception(folders: Sequence[Path] = ()) -> None:
    """Raises what `Fid` would."""
    _checked(find_inception(folders), folders)


def find_inception(folders: Sequence[Path] = ()) -> Path | None:
    """The checkpoint in one of `folders`, or else where torch-fidelity downloads it to."""
    return next((path for path in _places(folders) if path.is_file()), None)


def _places(folders: Sequence[Path]) -> list[Path]:
    return [folder / CHECKPOINT for folder in (*folders, Path(torch.hub.get_dir()) / "checkpoints")]


def _checked(path: Path | None, folders: Sequence[Path]) -> Path:
    """The same path, once the file has the hash in its name and reads as plain tensors; torchmetrics unpickles it."""
    if path is None:
        looked = ", ".join(str(place) for place in _places(folders))
        raise InceptionNotFound(
            f"FID needs {CHECKPOINT} (torch-fidelity's release v0.2.0), looked for at {looked}. "
            "Without it, use the Fréchet distance on AlexNet features"
        )
    content = read_checked(path)
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors and was not opened ({error})") from error
    return path
