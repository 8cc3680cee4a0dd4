"""Model integrity: same-seed LPIPS between the base model's pictures and the unlearned model's.

Schioppa, Hoogeboom, Heek, "Model Integrity when Unlearning with T2I Diffusion Models" (arXiv 2411.02068): I is the mean
over retain prompts and seeds of LPIPS(base(prompt, seed), unlearned(prompt, seed)). Zero means untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..prompts import check_measured
from .lpips import Lpips
from .sheet import SheetRow, picture_sheet
from .statistics import bootstrap_interval

Shot = tuple[str, int]  # prompt, seed
Draw = Callable[[Sequence[Shot]], Tensor]  # pictures [B, H, W, 3] in 0..1, the same for the same shot
SHEET_ROWS = 6  # of each kind
NOISE_FLOOR_SHOTS = 8


class Judge(Protocol):
    """Says what a picture shows."""

    def forgotten(self, prompts: Sequence[str]) -> tuple[str, str]:
        """The kind and the name of what the forget prompts have in common."""
        ...

    def unlearning_accuracy(self, pictures: Tensor, prompts: Sequence[str]) -> float:
        """Share of pictures that do not show what `prompts` have in common."""
        ...


@dataclass(frozen=True)
class PromptDistance:
    """LPIPS of one prompt's pictures, a value for each seed."""

    prompt: str
    lpips: list[float]

    @property
    def mean(self) -> float:
        return math.fsum(self.lpips) / len(self.lpips)


@dataclass(frozen=True)
class Retention:
    """What the metric found, with the settings that made it."""

    integrity: float  # mean LPIPS over the retain prompts
    interval: tuple[float, float] | None  # 95 %, over prompts; None for a single prompt
    noise_floor: float  # mean LPIPS of the base against a second run of the base
    retain: list[PromptDistance]
    forget: list[PromptDistance]
    forget_distance: float | None  # mean LPIPS over the forget prompts
    unlearning_accuracy: float | None  # share of the unlearned model's forget pictures without the concept
    base_unlearning_accuracy: float | None  # the same of the base's pictures: the judge's mistakes
    settings: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self)

    def markdown(self) -> str:
        """The figures as a table, per prompt below, settings last."""
        figures = [("I (integrity, lower is better)", f"{self.integrity:.4f}")]
        if self.interval:
            low, high = self.interval
            figures.append(("95 % interval", f"{low:.4f} to {high:.4f}"))
        figures.append(("noise floor", f"{self.noise_floor:.1e}"))
        if self.forget_distance is not None:
            figures.append(("forget distance (higher is better)", f"{self.forget_distance:.4f}"))
            ratio = f"{self.forget_distance / self.integrity:.1f}" if self.integrity else "infinite"
            figures.append(("forget distance / I", ratio))
        if self.unlearning_accuracy is not None:
            figures.append(("UA (forget pictures without the concept)", f"{self.unlearning_accuracy:.1%}"))
            figures.append(("the same of the base's pictures", f"{self.base_unlearning_accuracy:.1%}"))
        rows = [(name, row) for name, rows in (("forget", self.forget), ("retain", self.retain)) for row in rows]
        return "\n".join(
            [
                "| figure | value |",
                "|---|---|",
                *(f"| {name} | {value} |" for name, value in figures),
                "",
                "| | prompt | LPIPS |",
                "|---|---|---|",
                *(f"| {name} | {row.prompt} | {row.mean:.4f} |" for name, row in rows),
                "",
                ", ".join(f"{name} {value}" for name, value in self.settings.items()),
            ]
        )


def measure(
    base: Draw,
    unlearned: Draw,
    lpips: Lpips,
    retain: Sequence[str],
    forget: Sequence[str],
    seeds: Sequence[int],
    forget_seeds: Sequence[int],
    settings: dict[str, Any],
    judge: Judge | None = None,
) -> tuple[Retention, Tensor]:
    """The figures, and a picture sheet [1, H, W, 3].

    Retain prompts are drawn with each of `seeds`, forget prompts with each of `forget_seeds`, both consecutive.
    `settings` describes how the pictures are drawn; backbone and seeds are added to it. Raises ValueError when there
    are no retain prompts, or when the judge does not know what the forget prompts have in common.
    """
    check_measured(retain, forget)
    if judge is not None and forget:
        judge.forgotten(forget)
    shots = [(prompt, seed) for prompt in retain for seed in seeds]
    cut = len(shots)
    shots += [(prompt, seed) for prompt in forget for seed in forget_seeds]
    before, after = base(shots), unlearned(shots)
    distances = lpips.distance(before, after)
    repeated = min(cut, NOISE_FLOOR_SHOTS)
    again = base(shots[:repeated][::-1])  # in another order, so in other company within a batch
    floor = lpips.distance(before[:repeated].flip(0), again).mean().item()

    kept = per_prompt(retain, distances[:cut])
    forgotten = per_prompt(forget, distances[cut:])
    judged = judge if forget else None
    forget_prompts = [prompt for prompt, _ in shots[cut:]]
    result = Retention(
        integrity=distances[:cut].mean().item(),
        interval=bootstrap_interval([row.mean for row in kept]),
        noise_floor=floor,
        retain=kept,
        forget=forgotten,
        forget_distance=distances[cut:].mean().item() if forget else None,
        unlearning_accuracy=judged.unlearning_accuracy(after[cut:], forget_prompts) if judged else None,
        base_unlearning_accuracy=judged.unlearning_accuracy(before[cut:], forget_prompts) if judged else None,
        settings={
            **settings,
            "seeds": span(seeds),
            "forget seeds": span(forget_seeds),
            "LPIPS backbone": lpips.backbone,
        },
    )
    shown = spread(distances[:cut], SHEET_ROWS) + [cut + index for index in range_over(len(shots) - cut, SHEET_ROWS)]
    maps = lpips.heat_map(before[shown], after[shown])
    sheet = picture_sheet(
        [
            SheetRow(*shots[index], before[index], after[index], heat, distances[index].item(), forget=index >= cut)
            for index, heat in zip(shown, maps, strict=True)
        ]
    )
    return result, sheet


def count_shots(retain: Sequence[str], forget: Sequence[str], seeds: int, forget_seeds: int) -> int:
    """How many pictures `measure` draws."""
    kept = len(retain) * seeds
    return 2 * (kept + len(forget) * forget_seeds) + min(kept, NOISE_FLOOR_SHOTS)


def per_prompt(prompts: Sequence[str], distances: Tensor) -> list[PromptDistance]:
    """Distances [prompts * seeds], prompt by prompt, as one row each."""
    if not prompts:
        return []
    rows = distances.view(len(prompts), -1).tolist()
    return [PromptDistance(prompt, values) for prompt, values in zip(prompts, rows, strict=True)]


def span(seeds: Sequence[int]) -> str:
    """`1000 to 1003` for consecutive seeds."""
    return f"{seeds[0]} to {seeds[-1]}"


def spread(distances: Tensor, count: int) -> list[int]:
    """`count` indices from the least to the most changed, evenly by rank."""
    order = torch.argsort(distances, stable=True).tolist()
    return [order[index] for index in range_over(len(order), count)]


def range_over(length: int, count: int) -> list[int]:
    """At most `count` evenly spaced indices of 0..length - 1."""
    if length <= count:
        return list(range(length))
    return [round(index * (length - 1) / (count - 1)) for index in range(count)]
