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

from ..prompts import check_measured
from .drawing import BASE, UNLEARNED, Draw, Shot, chunks, drawn, shots_of
from .forgetting import Accuracies, Judge, Tally
from .lpips import Lpips
from .sheet import SheetRow, picture_sheet
from .similarity import psnr, ssim
from .statistics import bootstrap_interval

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
        return "\n".join(
            [
                "| figure | value |",
                "|---|---|",
                *(f"| {name} | {value} |" for name, value in self.figures()),
                "",
                "| | prompt | LPIPS |",
                "|---|---|---|",
                *(f"| {name} | {row.prompt} | {row.mean:.4f} |" for name, row in rows),
                "",
                f"I of each seed: {seeds}",
                "",
                ", ".join(f"{name} {value}" for name, value in self.settings.items()),
            ]
        )


def accuracy_figures(unlearned: Accuracies, base: Accuracies) -> list[tuple[str, str]]:
    """UA, IRA and CRA, each beside the base's, and the judge's own accuracy."""
    rows = [
        ("UA (forget pictures without the concept)", unlearned.ua, base.ua),
        ("IRA (retain pictures right, same domain)", unlearned.ira, base.ira),
        ("CRA (retain pictures right, other domain)", unlearned.cra, base.cra),
    ]
    shown = [
        (name, f"{value:.1%} (base {of_base:.1%})") for name, value, of_base in rows if None not in (value, of_base)
    ]
    return [*shown, ("judge's own accuracy (base pictures)", "none" if base.right is None else f"{base.right:.1%}")]


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
    base_again: Draw | None = None,
) -> tuple[Retention, Tensor]:
    """The figures, and a picture sheet [1, H, W, 3].

    Retain prompts are drawn with each of `seeds`, forget prompts with each of `forget_seeds`, both consecutive.
    `settings` describes how the pictures are drawn; backbone and seeds are added to it. Pictures pass through in
    chunks, and those on the sheet are asked for twice, so give draws that keep them (`PictureCache.drawing`), and the
    bare one as `base_again`, which draws for the noise floor. Raises ValueError when there are no retain prompts, when
    a picture has NaN, or when the judge does not know what the forget prompts have in common.
    """
    check_measured(retain, forget)
    judged = judge if forget else None
    tallies = (Tally(judged, forget), Tally(judged, forget)) if judged else None
    kept_shots, forget_shots = shots_of(retain, seeds), shots_of(forget, forget_seeds)
    shots = kept_shots + forget_shots
    floor = noise_floor(base, base_again or base, lpips, kept_shots)
    moved = [_moved(base, unlearned, lpips, chunk, tallies) for chunk in chunks(shots)]
    distances, ssims, psnrs = ([value for chunk in moved for value in chunk[column]] for column in range(3))
    cut = len(kept_shots)
    kept = _per_prompt(retain, seeds, distances[:cut], ssims[:cut], psnrs[:cut])
    worst = max(range(cut), key=distances.__getitem__)
    changed = [value for value in psnrs[:cut] if math.isfinite(value)]
    result = Retention(
        integrity=statistics.fmean(distances[:cut]),
        interval=bootstrap_interval([row.mean for row in kept]),
        median=statistics.median(distances[:cut]),
        worst=WorstPicture(*shots[worst], distances[worst]),
        per_seed={seed: statistics.fmean(distances[index : cut : len(seeds)]) for index, seed in enumerate(seeds)},
        ssim=statistics.fmean(ssims[:cut]),
        psnr=statistics.fmean(changed) if changed else None,
        noise_floor=floor,
        retain=kept,
        forget=_per_prompt(forget, forget_seeds, distances[cut:], ssims[cut:], psnrs[cut:]),
        forget_distance=statistics.fmean(distances[cut:]) if forget else None,
        judge=judged.name if judged else None,
        accuracies=tallies[1].result() if tallies else None,
        base_accuracies=tallies[0].result() if tallies else None,
        settings={
            **settings,
            "seeds": span(seeds),
            "forget seeds": span(forget_seeds),
            "LPIPS backbone": lpips.backbone,
        },
    )
    shown = spread(distances[:cut], SHEET_ROWS) + [cut + index for index in range_over(len(forget_shots), SHEET_ROWS)]
    return result, _sheet(base, unlearned, lpips, [(shots[index], distances[index], index >= cut) for index in shown])


def noise_floor(base: Draw, base_again: Draw, lpips: Lpips, shots: Sequence[Shot]) -> float:
    """Mean LPIPS of the base against a second run of it, in another order, so in other company within a batch."""
    repeated = list(shots[:NOISE_FLOOR_SHOTS])
    again = drawn(base_again, repeated[::-1], BASE)
    return lpips.distance(drawn(base, repeated, BASE), again.flip(0)).mean().item()


def count_shots(retain: Sequence[str], forget: Sequence[str], seeds: int, forget_seeds: int) -> int:
    """How many pictures `measure` draws."""
    kept = len(retain) * seeds
    return 2 * (kept + len(forget) * forget_seeds) + min(kept, NOISE_FLOOR_SHOTS)


def _moved(
    base: Draw, unlearned: Draw, lpips: Lpips, shots: Sequence[Shot], tallies: tuple[Tally, Tally] | None
) -> tuple[list[float], list[float], list[float]]:
    """LPIPS, SSIM and PSNR of each shot; the judge's verdicts go to the tallies of base and unlearned."""
    before, after = drawn(base, shots, BASE), drawn(unlearned, shots, UNLEARNED)
    if tallies:
        for tally, pictures in zip(tallies, (before, after), strict=True):
            tally.add(pictures, [prompt for prompt, _ in shots])
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


def _sheet(base: Draw, unlearned: Draw, lpips: Lpips, rows: Sequence[tuple[Shot, float, bool]]) -> Tensor:
    """The picture sheet of shots with their distance and whether they are to be forgotten."""
    shots = [shot for shot, _, _ in rows]
    before, after = drawn(base, shots, BASE), drawn(unlearned, shots, UNLEARNED)
    pairs = zip(rows, before, after, lpips.heat_map(before, after), strict=True)
    return picture_sheet([SheetRow(*shot, a, b, heat, value, forget) for (shot, value, forget), a, b, heat in pairs])


def span(seeds: Sequence[int]) -> str:
    """`1000 to 1003` for consecutive seeds."""
    return f"{seeds[0]} to {seeds[-1]}"


def spread(values: Sequence[float], count: int) -> list[int]:
    """`count` indices from the least to the greatest value, evenly by rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order[index] for index in range_over(len(order), count)]


def range_over(length: int, count: int) -> list[int]:
    """At most `count` evenly spaced indices of 0..length - 1."""
    if length <= count:
        return list(range(length))
    return [round(index * (length - 1) / (count - 1)) for index in range(count)]
