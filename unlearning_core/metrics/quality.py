"""What readers ask for beside integrity: CLIPScore, CMMD, and Fréchet distances from the base's pictures.

They see a set of pictures as a whole, or a picture and its prompt, and so miss that another picture took its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..prompts import check_measured
from .clip import Clip, cmmd
from .drawing import BASE, UNLEARNED, Draw, chunks, drawn, shots_of
from .frechet import alexnet_features, frechet_distance
from .inception import Fid
from .lpips import Lpips


@dataclass(frozen=True)
class ClipScore:
    """Mean CLIPScore, 0 to 100, of pictures and their own prompts."""

    unlearned: float
    base: float


@dataclass(frozen=True)
class Quality:
    """What was found over the retain pictures, with the settings that made it."""

    frechet_alexnet: float  # Fréchet distance on AlexNet's features; not FID
    fid: float | None  # None without Inception weights
    cmmd: float | None
    clip_score: ClipScore | None  # of the retain prompts
    forget_clip_score: ClipScore | None  # of the forget prompts
    settings: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self)

    def figures(self) -> list[tuple[str, str]]:
        """Names and values as text."""
        figures = [("Fréchet distance (AlexNet features)", f"{self.frechet_alexnet:.4f}")]
        if self.fid is not None:
            figures.append(("FID to the base", f"{self.fid:.2f}"))
        if self.cmmd is not None:
            figures.append(("CMMD to the base", f"{self.cmmd:.4f}"))
        for name, score in (("retain", self.clip_score), ("forget", self.forget_clip_score)):
            if score:
                figures.append((f"CLIPScore, {name} prompts", f"{score.unlearned:.2f} (base {score.base:.2f})"))
        return figures

    def markdown(self) -> str:
        """The figures as a table, settings below."""
        return "\n".join(
            [
                "| figure | value |",
                "|---|---|",
                *(f"| {name} | {value} |" for name, value in self.figures()),
                "",
                ", ".join(f"{name} {value}" for name, value in self.settings.items()),
            ]
        )


def measure_quality(
    base: Draw,
    unlearned: Draw,
    alexnet: Lpips,
    retain: Sequence[str],
    forget: Sequence[str],
    seeds: Sequence[int],
    forget_seeds: Sequence[int],
    settings: dict[str, Any],
    clip: Clip | None = None,
    fid: Fid | None = None,
) -> Quality:
    """The figures of retain prompts times `seeds`, and CLIPScore of forget prompts times `forget_seeds` too.

    `settings` describes how the pictures are drawn. Raises ValueError when there are fewer than two retain pictures or
    one has NaN.
    """
    check_measured(retain, forget)
    shots = shots_of(retain, seeds)
    if len(shots) < 2:
        raise ValueError("retain prompts: a Fréchet distance needs two pictures or more; add a prompt or a seed")
    features: tuple[list[Tensor], list[Tensor]] = ([], [])
    embedded: tuple[list[Tensor], list[Tensor]] = ([], [])
    for chunk in chunks(shots):
        both = drawn(base, chunk, BASE), drawn(unlearned, chunk, UNLEARNED)
        for pictures, seen, placed in zip(both, features, embedded, strict=True):
            seen.append(alexnet_features(alexnet, pictures))
            if clip:
                placed.append(clip.embed_pictures(pictures))
        if fid:
            fid.add(*both)
    images = [torch.cat(placed) for placed in embedded] if clip else []
    return Quality(
        frechet_alexnet=frechet_distance(*(torch.cat(seen) for seen in features)),
        fid=fid.result() if fid else None,
        cmmd=cmmd(*images) if clip else None,
        clip_score=_clip_score(clip, images, [prompt for prompt, _ in shots]) if clip else None,
        forget_clip_score=_forget_clip_score(clip, base, unlearned, forget, forget_seeds) if clip and forget else None,
        settings={**settings, "retain pictures": len(shots), "CLIP": clip.name if clip else None},
    )


def _clip_score(clip: Clip, images: Sequence[Tensor], prompts: Sequence[str]) -> ClipScore:
    """From the embedded pictures of base and unlearned."""
    base, unlearned = (clip.scores(embedded, prompts).mean().item() for embedded in images)
    return ClipScore(unlearned, base)


def _forget_clip_score(
    clip: Clip, base: Draw, unlearned: Draw, forget: Sequence[str], seeds: Sequence[int]
) -> ClipScore:
    shots = shots_of(forget, seeds)
    images = [
        torch.cat([clip.embed_pictures(drawn(draw, chunk, name)) for chunk in chunks(shots)])
        for draw, name in ((base, BASE), (unlearned, UNLEARNED))
    ]
    return _clip_score(clip, images, [prompt for prompt, _ in shots])
