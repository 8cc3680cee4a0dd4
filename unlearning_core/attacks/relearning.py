"""Training the concept back in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..bank import Source
from ..deltas import make_deltas
from ..options import option, series
from .base import Attack, Attacked, Task
from .fitting import denoising_loss, fitted, noised_pictures

SUBJECTS = ("the concept", "other things")


@dataclass(frozen=True)
class Relearning(Attack):
    """Fine-tunes all weights on the base's pictures, at several learning rates, and draws the forget prompts."""

    label = "Relearning"
    summary = "fine-tunes the model on the base's pictures of the concept, and of other things as a control"
    source = (
        'Suriyakumar et al., "Unstable Unlearning: The Hidden Risk of Concept Resurgence in Diffusion Models" '
        "(arXiv 2410.08074), for other things; the denoising loss of Ho et al. (arXiv 2006.11239)"
    )
    reading = (
        "a concept that is back after fewer steps than the reversed one needs was hidden, not gone; what other "
        "things bring back was hardly hidden"
    )

    trains = True

    rates: tuple[float, ...] = series((1e-4, 1e-3), 1e-8, 1.0, "Adam's learning rates")
    steps: tuple[int, ...] = series((5, 20), 1, 100_000, "step counts after which it is looked at")
    rank: int = option(0, 0, 1024, "LoRA rank of the change; 0 trains all weights in full", step=1)
    batch_size: int = option(4, 1, 256, "noised pictures a step", step=1)

    def settings(self, task: Task) -> list[str]:
        """Pictures, rates and step counts."""
        return [
            self._setting(subject, rate, steps) for subject in SUBJECTS for rate in self.rates for steps in self._stops
        ]

    def run(self, attacked: Attacked) -> None:
        """Shows the forget prompts after each step count. The model is left as it was."""
        for subject, pictures in zip(SUBJECTS, (attacked.scene.concept, attacked.scene.others), strict=True):
            for rate in self.rates:
                self._train(attacked, subject, pictures, rate)

    @property
    def _stops(self) -> list[int]:
        return sorted(set(self.steps))

    @staticmethod
    def _setting(subject: str, rate: float, steps: int) -> str:
        return f"{subject}, rate {rate:g}, {steps} steps"

    def _train(self, attacked: Attacked, subject: str, pictures: Source, rate: float) -> None:
        model, task, generator = attacked.model, attacked.task, attacked.generator()
        deltas = make_deltas(model.weights(), self.rank, task.seed, model.device)
        parameters = [parameter for delta in deltas.values() for parameter in delta.parameters()]
        latents, conds = noised_pictures(attacked, pictures), model.encode(attacked.prompts)

        def loss() -> Tensor:
            batch = latents.sample(self.batch_size, generator)
            return denoising_loss(attacked, batch, batch.conds)

        with model.attach(deltas):
            for steps in fitted(parameters, loss, rate, self._stops):
                setting = self._setting(subject, rate, steps)
                attacked.show(setting, attacked.drawn(conds, task.sampling), steps)
