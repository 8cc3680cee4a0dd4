"""Model integrity: same-seed LPIPS between the base model's pictures and the unlearned model's.

Schioppa, Hoogeboom, Heek, "Model Integrity when Unlearning with T2I Diffusion Models" (arXiv 2411.02068): I is the mean
over retain prompts and seeds of LPIPS(base(prompt, seed), unlearned(prompt, seed)). Zero means untouched.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor

from .drawing import BASE, UNLEARNED, Draw, Plan, Shot, chunks, drawn
from .forgetting import Accuracies, Judge, Tally, accuracy_figures
from .lpips import Lpips
from .sheet import SheetRow, picture_sheet
from .similarity import psnr, ssim
from .statistics import bootstrap_interval
from .tables import markdown_table, settings_line

SHEET_ROWS = 6  # of each kind
NOISE_FLOOR_SHOTS = 4


@dataclass(frozen=True)
class PromptDistance:
    """How far one prompt's pictures moved, a value for each seed."""

    prompt: str
    seeds: list[int]
    lpips: list[float]
    ssim: list[float]  # 1 is the same
    psnr: list[float | None]  # dB; None for equal pictures, where it is infinite

    @property
    def mean(self) -> float:
        return statistics.fmean(self.lpips)


class WorstPicture(NamedTuple):
    """The retain picture that moved furthest."""

    prompt: str
    seed: int
    lpips: float


@dataclass(frozen=True)
class Retention:
    """What the metric found, with the settings that made it."""

    integrity: float  # mean LPIPS over the retain prompts
    interval: tuple[float, float] | None  # 95 %, over prompts; None for a single prompt
    median: float  # LPIPS, over the retain pictures
    worst: WorstPicture
    per_seed: dict[int, float]  # mean LPIPS over the retain prompts with that seed
    ssim: float  # mean over the retain pictures
    psnr: float | None  # mean over the retain pictures that changed at all, dB; None when none did
    noise_floor: float  # mean LPIPS of the base against a second run of the base
    retain: list[PromptDistance]
    forget: list[PromptDistance]
    forget_distance: float | None  # mean LPIPS over the forget prompts
    judge: str | None
    accuracies: Accuracies | None  # of the unlearned model's pictures
    base_accuracies: Accuracies | None  # of the base's pictures: what the judge itself gets wrong
    settings: dict[str, Any]

    @property
    def unlearning_accuracy(self) -> float | None:
        """UA: share of the unlearned model's forget pictures without the concept."""
        return self.accuracies.ua if self.accuracies else None

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return {
            **asdict(self),
            "worst": self.worst._asdict(),
            "per_seed": {str(seed): value for seed, value in self.per_seed.items()},
            "unlearning_accuracy": self.unlearning_accuracy,
        }

    def figures(self) -> list[tuple[str, str]]:
        """Names and values as text, most important first."""
        figures = [("I (integrity, lower is better)", f"{self.integrity:.4f}")]
        if self.interval:
            low, high = self.interval
            figures.append(("95 % interval", f"{low:.4f} to {high:.4f}"))
        figures.append(("noise floor", f"{self.noise_floor:.1e}"))
        if self.forget_distance is not None:
            figures.append(("forget distance (higher is better)", f"{self.forget_distance:.4f}"))
            ratio = f"{self.forget_distance / self.integrity:.1f}" if self.integrity else "infinite"
            figures.append(("forget distance / I", ratio))
        if self.accuracies and self.base_accuracies:
            figures += accuracy_figures(self.accuracies, self.base_accuracies)
        worst = f"{self.worst.lpips:.4f} ({self.worst.prompt}, seed {self.worst.seed})"
        figures += [
            ("median LPIPS", f"{self.median:.4f}"),
            ("worst LPIPS", worst),
            ("mean SSIM / PSNR", f"{self.ssim:.3f} / {'infinite' if self.psnr is None else f'{self.psnr:.1f} dB'}"),
        ]
        return figures

    def markdown(self) -> str:
        """The figures as a table, per prompt and per seed below, settings last."""
        rows = [(name, row) for name, rows in (("forget", self.forget), ("retain", self.retain)) for row in rows]
        seeds = ", ".join(f"{seed}: {value:.4f}" for seed, value in self.per_seed.items())
        blocks = [
            markdown_table(("figure", "value"), self.figures()),
            markdown_table(("", "prompt", "LPIPS"), [(name, row.prompt, f"{row.mean:.4f}") for name, row in rows]),
            f"I of each seed: {seeds}",
            settings_line(self.settings),
        ]
        return "\n\n".join(blocks)


@dataclass(frozen=True)
class Baseline:
    """What the base's own pictures show, whatever they are compared to."""

    noise_floor: float
    accuracies: Accuracies | None


def measure(
    base: Draw,
    unlearned: Draw,
    lpips: Lpips,
    plan: Plan,
    settings: dict[str, Any],
    judge: Judge | None,
    base_again: Draw,
) -> tuple[Retention, Tensor]:
    """The figures, and a picture sheet [1, H, W, 3].

    `settings` describes how the pictures are drawn; backbone and seeds are added to it. A judge counts where there are
    forget prompts. Pictures pass through in chunks and are asked for more than once, so give draws that keep them
    (`PictureCache.drawing`), and one that does not as `base_again`, which draws for the noise floor. Raises ValueError
    when a picture has NaN, and before anything is drawn when the judge does not know what the forget prompts have in
    common.
    """
    known = baseline(base, base_again, lpips, plan, judge)
    result = retention_of(known, base, unlearned, lpips, plan, settings, judge)
    return result, retention_sheet(base, unlearned, lpips, result)


def baseline(base: Draw, base_again: Draw, lpips: Lpips, plan: Plan, judge: Judge | None) -> Baseline:
    """Draws all of the base's pictures, so that later no two models take turns on the device. Raises as `measure`."""
    tally = _tally(judge, plan)
    for chunk in chunks(plan.shots):
        pictures = drawn(base, chunk, BASE)
        if tally:
            tally.add(pictures, [prompt for prompt, _ in chunk])
    return Baseline(noise_floor(base, base_again, lpips, plan.retain_shots), tally.result() if tally else None)


def retention_of(
    known: Baseline,
    base: Draw,
    unlearned: Draw,
    lpips: Lpips,
    plan: Plan,
    settings: dict[str, Any],
    judge: Judge | None,
    name: str = UNLEARNED,
) -> Retention:
    """The figures of one unlearned model, whose `name` is for messages. Raises as `measure`."""
    tally, shots = _tally(judge, plan), plan.shots
    moved = [_moved(base, unlearned, lpips, chunk, tally, name) for chunk in chunks(shots)]
    distances, ssims, psnrs = ([value for chunk in moved for value in chunk[column]] for column in range(3))
    cut = len(plan.retain_shots)
    kept = _per_prompt(plan.retain, plan.seeds, distances[:cut], ssims[:cut], psnrs[:cut])
    worst = max(range(cut), key=distances.__getitem__)
    changed = [value for value in psnrs[:cut] if math.isfinite(value)]
    every = len(plan.seeds)
    return Retention(
        integrity=statistics.fmean(distances[:cut]),
        interval=bootstrap_interval([row.mean for row in kept], lowest=0.0),
        median=statistics.median(distances[:cut]),
        worst=WorstPicture(*shots[worst], distances[worst]),
        per_seed={seed: statistics.fmean(distances[index:cut:every]) for index, seed in enumerate(plan.seeds)},
        ssim=statistics.fmean(ssims[:cut]),
        psnr=statistics.fmean(changed) if changed else None,
        noise_floor=known.noise_floor,
        retain=kept,
        forget=_per_prompt(plan.forget, plan.forget_seeds, distances[cut:], ssims[cut:], psnrs[cut:]),
        forget_distance=statistics.fmean(distances[cut:]) if plan.forget else None,
        judge=tally.judge.name if tally else None,
        accuracies=tally.result() if tally else None,
        base_accuracies=known.accuracies,
        settings={**settings, **plan.settings(), "LPIPS backbone": lpips.backbone},
    )


def noise_floor(base: Draw, base_again: Draw, lpips: Lpips, shots: Sequence[Shot]) -> float:
    """Mean LPIPS of the base against a second run of it, in another order, so in other company within a batch."""
    repeated = list(shots[:NOISE_FLOOR_SHOTS])
    again = drawn(base_again, repeated[::-1], BASE)
    return lpips.distance(drawn(base, repeated, BASE), again.flip(0)).mean().item()


def count_shots(plan: Plan, models: int = 1) -> int:
    """How many pictures `measure` draws, or `evaluate` of so many unlearned models."""
    return (1 + models) * len(plan.shots) + min(len(plan.retain_shots), NOISE_FLOOR_SHOTS)


def _tally(judge: Judge | None, plan: Plan) -> Tally | None:
    return Tally(judge, plan.forget) if judge and plan.forget else None


def _moved(
    base: Draw, unlearned: Draw, lpips: Lpips, shots: Sequence[Shot], tally: Tally | None, name: str
) -> tuple[list[float], list[float], list[float]]:
    """LPIPS, SSIM and PSNR of each shot; the judge's verdicts on the unlearned model's pictures go to the tally."""
    before, after = drawn(base, shots, BASE), drawn(unlearned, shots, name)
    if tally:
        tally.add(after, [prompt for prompt, _ in shots])
    return lpips.distance(before, after).tolist(), ssim(before, after), psnr(before, after)


def _per_prompt(
    prompts: Sequence[str],
    seeds: Sequence[int],
    distances: Sequence[float],
    ssims: Sequence[float],
    psnrs: Sequence[float],
) -> list[PromptDistance]:
    """Values of [prompts * seeds], prompt by prompt, as one row each."""
    finite = [value if math.isfinite(value) else None for value in psnrs]
    count = len(seeds)
    rows = [slice(index * count, (index + 1) * count) for index in range(len(prompts))]
    return [
        PromptDistance(prompt, list(seeds), list(distances[row]), list(ssims[row]), finite[row])
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def retention_sheet(base: Draw, unlearned: Draw, lpips: Lpips, retention: Retention) -> Tensor:
    """Some retain pictures, from the least to the furthest moved, and some forget pictures: [1, H, W, 3]."""
    kept, lost = _pictures(retention.retain), _pictures(retention.forget)
    some = [kept[index] for index in spread([distance for _, distance in kept], SHEET_ROWS)]
    forgotten = [lost[index] for index in range_over(len(lost), SHEET_ROWS)]
    shots = [shot for shot, _ in some + forgotten]
    before, after = drawn(base, shots, BASE), drawn(unlearned, shots, UNLEARNED)
    kinds = [False] * len(some) + [True] * len(forgotten)
    rows = zip(some + forgotten, before, after, lpips.heat_map(before, after), kinds, strict=True)
    return picture_sheet([SheetRow(*shot, a, b, heat, value, forget) for (shot, value), a, b, heat, forget in rows])


def _pictures(rows: Sequence[PromptDistance]) -> list[tuple[Shot, float]]:
    """Each shot with its LPIPS."""
    return [((row.prompt, seed), value) for row in rows for seed, value in zip(row.seeds, row.lpips, strict=True)]


def spread(values: Sequence[float], count: int) -> list[int]:
    """`count` indices from the least to the greatest value, evenly by rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order[index] for index in range_over(len(order), count)]


def range_over(length: int, count: int) -> list[int]:
    """At most `count` evenly spaced indices of 0..length - 1."""
    if length <= count:
        return list(range(length))
    return [round(index * (length - 1) / (count - 1)) for index in range(count)]
