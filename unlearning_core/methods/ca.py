"""CA, Concept Ablation: what the model predicts under the overwrite prompt, the anchor, becomes the forget prompt's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..probes import overwrite_prediction
from .base import GradientMethod, Objective, Step, Training

if TYPE_CHECKING:
    from ..model import DiffusionModel


@dataclass(frozen=True)
class Ca(GradientMethod):
    """The model-based CA objective; it has no option of its own."""

    label: ClassVar[str] = "CA (Concept Ablation)"
    summary: ClassVar[str] = "on the overwrite prompt's pictures, predict as under that prompt"
    equation: ClassVar[str] = "||e(x_o, c_f) - sg e(x_o, c_o)||^2"
    source: ClassVar[str] = (
        'Kumari, Zhang, Wang, Shechtman, Zhang, Zhu, "Ablating Concepts in Text-to-Image Diffusion Models" '
        "(arXiv 2303.13516), the model-based objective"
    )
    weights: ClassVar[str] = "cross_attention_kv"
    guides: ClassVar[tuple[int, ...]] = (1,)
    noised: ClassVar[bool] = True

    def begin(self, training: Training) -> Objective:
        return _Ablation(training.model)


class _Ablation:
    """The objective over the model that is being trained."""

    def __init__(self, model: DiffusionModel) -> None:
        self.model = model

    def loss(self, step: Step) -> Tensor:
        return F.mse_loss(step.e_forget, overwrite_prediction(self.model, step.forget))

    def figures(self) -> dict[str, float]:
        return {}
