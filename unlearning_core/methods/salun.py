"""SalUn, saliency unlearning: under the forget prompt, predict what the model itself predicts under another prompt.

The weights with the largest gradient of the forget pictures' denoising loss train. The pseudo prompt is the overwrite
prompt. A full change is exactly zero in the other weights. LoRA factors are trained by the gradient of the salient
weights alone, but their product reaches the others too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..latents import parts
from ..options import option
from ..probes import denoising_gradients, overwrite_prediction
from .base import GradientMethod, Objective, Step, Training

if TYPE_CHECKING:
    from ..model import DiffusionModel

SALIENCY_BATCHES = 8


@dataclass(frozen=True)
class Salun(GradientMethod):
    """The SalUn objective."""

    label: ClassVar[str] = "SalUn (saliency)"
    summary: ClassVar[str] = "draw as under the overwrite prompt, in the weights that matter most to the concept"
    equation: ClassVar[str] = (
        "||e(x, c_f) - sg e(x, c_o)||^2 + retain_weight * ||e(x_r, c_r) - noise||^2\n"
        "in the weights with the largest gradient of ||e(x, c_f) - noise||^2"
    )
    source: ClassVar[str] = (
        'Fan, Liu, Zhang, Wong, Wei, Liu, "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency in '
        'Both Image Classification and Generation" (arXiv 2310.12508)'
    )
    weights: ClassVar[str] = "cross_attention"
    noised: ClassVar[bool] = True
    uses_retain: ClassVar[bool] = True
    preparing: ClassVar[int] = 24  # gradients and their sum, then sorted sizes
    prepared: ClassVar[int] = 1  # the mask

    retain_weight: float = option(0.5, 0.0, 100.0, "weight of the denoising loss on the retain prompts' pictures")
    saliency: float = option(0.5, 0.001, 1.0, "share of the weights to train, those with the largest forget gradient")

    @property
    def preparation(self) -> int:
        return SALIENCY_BATCHES

    def begin(self, training: Training) -> Objective:
        for name, mask in self.masks(training).items():
            training.deltas[name].train_only(mask)
        return _Relabelling(self, training.model)

    def masks(self, training: Training) -> dict[str, Tensor]:
        """For each weight, which of its elements train."""
        total = {name: torch.zeros_like(delta.change()) for name, delta in training.deltas.items()}
        forget, count = training.bank.forget, training.batch_size
        drawn = [forget.places(count, training.generator) for _ in range(SALIENCY_BATCHES)]
        each = parts(slice(0, count), training.micro_batch)
        batches = (forget.at(places, rows) for places in drawn for rows in each)
        found = denoising_gradients(training.model, list(total), batches)
        for rows, gradients in zip(cycle(each), found, strict=False):
            for name, gradient in gradients.items():
                total[name].add_(gradient.to(total[name]), alpha=(rows.stop - rows.start) / count)
            if rows is each[-1]:
                training.report()
        sizes = torch.cat([gradient.abs().flatten() for gradient in total.values()])
        masked = round((1 - self.saliency) * len(sizes))
        threshold = sizes.kthvalue(masked).values if masked else sizes.new_tensor(-1.0)
        return {name: gradient.abs() > threshold for name, gradient in total.items()}


class _Relabelling:
    """The objective over the model that is being trained."""

    def __init__(self, method: Salun, model: DiffusionModel) -> None:
        self.method, self.model = method, model

    def loss(self, step: Step) -> Tensor:
        assert step.retain is not None and step.e_retain is not None
        pseudo = overwrite_prediction(self.model, step.forget)
        kept = F.mse_loss(step.e_retain, step.retain.noise)
        return F.mse_loss(step.e_forget, pseudo) + self.method.retain_weight * kept

    def figures(self) -> dict[str, float]:
        return {}
