"""The network of a MODEL itself, for what only looks into it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from .calls import caches_emptied
from .clones import undisturbed
from .model import ComfyModel
from .traits import check_base
from .weights import effective_weights


class SharedModel(ComfyModel):
    """A `DiffusionModel` that predicts and has weights, and is not trained: nothing is copied."""

    resident = False

    def __init__(self, patcher: ModelPatcher, clip: CLIP) -> None:
        super().__init__(patcher, clip)
        self.isolated = caches_emptied

    @torch.no_grad()
    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Any]) -> Tensor:
        """As `ComfyModel`, without gradients: the weights may be inference tensors."""
        return super().predict_x0(x, sigma, conds)

    def weights(self) -> Mapping[str, Tensor]:
        """As `ComfyModel`, each computed when it is asked for."""
        return effective_weights(self.patcher)


@contextmanager
def shared_model(model: ModelPatcher, clip: CLIP) -> Iterator[SharedModel]:
    """The MODEL with its patches. Raises ValueError as `check_base`."""
    with undisturbed(model):
        check_base(model)
        yield SharedModel(model.clone(), clip)
