"""The same prompts, sampled otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..options import series
from ..sampling import Predict, Sampling
from .base import Attack, Attacked, Sampler, Task


@dataclass(frozen=True)
class Guidance(Attack):
    """Draws the forget prompts at other guidance scales and step counts, and with other samplers."""

    label = "Guidance and sampler"
    summary = "draws the forget prompts at other guidance scales, step counts and samplers"
    source = "none; heun is algorithm 1 of Karras et al. (arXiv 2206.00364), lcm is k-diffusion's and ComfyUI's sampler"
    reading = "a patch that was trained on the way of one sampler may fail beside it"

    scales: tuple[float, ...] = series((1.0, 5.0, 12.0), 0.0, 100.0, "guidance scales; 1 is the prompt alone")
    steps: tuple[int, ...] = series((10, 50), 1, 1000, "step counts")

    def settings(self, task: Task) -> list[str]:
        """One change at a time."""
        return [*self._changed(task), *SAMPLERS]

    def run(self, attacked: Attacked) -> None:
        """Shows each with the task's seeds."""
        conds = attacked.model.encode(attacked.prompts)
        for setting, sampling in self._changed(attacked.task).items():
            attacked.show(setting, attacked.drawn(conds, sampling))
        for name, sampler in SAMPLERS.items():
            attacked.show(name, attacked.drawn(conds, attacked.task.sampling, sampler(attacked)))

    def _changed(self, task: Task) -> dict[str, Sampling]:
        scaled = {f"cfg {scale:g}": replace(task.sampling, cfg=scale) for scale in self.scales}
        return scaled | {f"{steps} steps": replace(task.sampling, steps=steps) for steps in self.steps}


def sample_heun(predict: Predict, x: Tensor, sigmas: Tensor) -> Tensor:
    """As `sample_euler`, with the second-order correction: two predictions a step, one in the last."""
    for sigma, sigma_next in pairwise(sigmas):
        direction = predict(x, sigma)
        stepped = x + (sigma_next - sigma) * direction
        if sigma_next > 0:
            direction = (direction + predict(stepped, sigma_next)) / 2
            stepped = x + (sigma_next - sigma) * direction
        x = stepped
    return x


def lcm_sampler(attacked: Attacked) -> Sampler:
    """Goes to the picture in each step and adds new noise: k-diffusion's sample_lcm (Song et al. 2023, 2303.01469)."""
    generator = attacked.generator()

    def sample_lcm(predict: Predict, x: Tensor, sigmas: Tensor) -> Tensor:
        for sigma, sigma_next in pairwise(sigmas):
            x = x - sigma * predict(x, sigma)
            if sigma_next > 0:
                noise = torch.randn(x.shape, generator=generator).to(x)
                x = attacked.model.noised(x, noise, sigma_next.expand(len(x)))
        return x

    return sample_lcm


SAMPLERS: Mapping[str, Callable[[Attacked], Sampler]] = {"heun": lambda attacked: sample_heun, "lcm": lcm_sampler}
