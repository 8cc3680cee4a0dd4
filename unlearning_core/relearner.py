"""A relearner: fine-tuning on what is forgotten, while the network learns to answer otherwise under it.

As Tamirisa et al. (2024, arXiv 2408.00761) train language models against fine-tuning, and Gao et al. (2024, arXiv
2410.12777) diffusion models; here what is fine-tuned is a change of its own on top of the trained one, which begins
anew after some steps, and one forward pass serves both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deltas import FUSED, Delta, make_deltas
from .latents import LatentSet, Places
from .model import DiffusionModel, noise_prediction
from .processes import current

RATE = 0.5  # Adam's, of the rate of what is trained


class Relearner:
    """A change of all weights that lowers the denoising loss at noised pictures of what is forgotten."""

    def __init__(self, model: DiffusionModel, pictures: LatentSet, steps: int, rank: int, learning_rate: float) -> None:
        """After `steps` of its own it begins anew; `rank` 0 is a full change, `learning_rate` that of the training.

        `pictures` are noised, with the base's overwrite prediction.
        """
        self._model, self._pictures, self._steps = model, pictures, steps
        self._rate = RATE * learning_rate
        self._changes = make_deltas(model.weights(), rank, 0, model.device)
        self._stacked: dict[str, _Stacked] = {}
        self._begin()

    def over(self, deltas: Mapping[str, Delta]) -> dict[str, nn.Module]:
        """What to attach in place of the deltas: this change is on top of them, and acts in `study` alone."""
        self._stacked = {name: _Stacked(deltas.get(name), change) for name, change in self._changes.items()}
        return {**deltas, **self._stacked}

    def places(self, count: int, generator: torch.Generator) -> Places:
        """Random pictures and noise levels for a step."""
        return self._pictures.places(count, generator)

    def study(self, drawn: Places, rows: slice, parameters: Sequence[Tensor]) -> Tensor:
        """At these rows, adds the gradients of the denoising loss to its own, and those of the overwrite loss to the
        trained `parameters`'. Returns the overwrite loss. Both losses are times the rows' share of the batch.
        """
        batch = self._pictures.at(drawn, rows)
        share = len(batch) / len(drawn.items)
        with self._acting():  # in backward too, which may compute again
            e = noise_prediction(self._model, batch.x, batch.sigma, batch.conds)
            (share * F.mse_loss(e, batch.noise)).backward(inputs=self._parameters, retain_graph=True)
            loss = share * F.mse_loss(e, batch.e_overwrite)
            loss.backward(inputs=parameters)
        return loss.detach()

    def learn(self) -> None:
        """A step, once all rows have been studied; after the last one it begins anew."""
        current().total_gradients(self._parameters)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._taken += 1
        if self._taken == self._steps:
            for change in self._changes.values():
                change.undo()
            self._begin()

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter for change in self._changes.values() for parameter in change.parameters()]

    def _begin(self) -> None:
        self._taken = 0
        fused = self._model.device.type in FUSED
        self._optimizer = torch.optim.Adam(self._parameters, lr=self._rate, fused=fused)

    @contextmanager
    def _acting(self) -> Iterator[None]:
        for layer in self._stacked.values():
            layer.acts = True
        try:
            yield
        finally:
            for layer in self._stacked.values():
                layer.acts = False


class _Stacked(nn.Module):
    """A trained delta, where there is one, and on top of it a change that acts now and then."""

    def __init__(self, trained: Delta | None, change: Delta) -> None:
        super().__init__()
        self.trained, self.change = trained, change
        self.acts = False

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, of the weight's shape and type."""
        changed = self.trained(weight) if self.trained else weight
        return self.change(changed) if self.acts else changed
