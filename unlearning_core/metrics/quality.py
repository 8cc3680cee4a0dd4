"""What readers ask for beside integrity: CLIPScore, CMMD, and Fréchet distances from the base's pictures.

They see a set of pictures as a whole, or a picture and its prompt, and so miss that another picture took its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from .clip import Clip, cmmd
from .drawing import BASE, UNLEARNED, Draw, Plan, Shot, chunks, drawn
from .frechet import alexnet_features, frechet_distance
from .inception import Fid
from .lpips import Lpips
from .tables import markdown_table, settings_line


@dataclass(frozen=True)
class ClipScore:
    """Mean CLIPScore, 0 to 100, of pictures and their own prompts."""

    unlearned: float
    base: float


@dataclass(frozen=True)
class Quality:
    """What was found over the retain pictures, with the settings that made it."""

    frechet_alexnet: float  # Fréchet distance on AlexNet's features; not FID
    fid: float | None  # None where it was not asked for
    cmmd: float
    clip_score: ClipScore  # of the retain prompts
    forget_clip_score: ClipScore | None  # of the forget prompts
    plan: Plan
    settings: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self)

    def figures(self) -> list[tuple[str, str]]:
        """Names and values as text."""
        figures = [("Fréchet distance (AlexNet features)", f"{self.frechet_alexnet:.4f}")]
        if self.fid is not None:
            figures.append(("FID to the base", f"{self.fid:.2f}"))
        figures.append(("CMMD to the base", f"{self.cmmd:.4f}"))
        for name, score in (("retain", self.clip_score), ("forget", self.forget_clip_score)):
            if score:
                figures.append((f"CLIPScore, {name} prompts", f"{score.unlearned:.2f} (base {score.base:.2f})"))
        return figures

    def markdown(self) -> str:
        """The figures as a table, settings below."""
        return f"{markdown_table(('figure', 'value'), self.figures())}\n\n{settings_line(self.settings)}"


@dataclass(frozen=True)
class Networks:
    """What sees the pictures."""

    alexnet: Lpips
    clip: Clip
    fid: Fid | None = None


@dataclass(frozen=True)
class Seen:
    """One model's pictures as the networks see them: a row for each shot of the plan."""

    alexnet: Tensor  # [retain shots, 256]
    inception: Tensor | None  # [retain shots, 2048]
    retain: Tensor  # CLIP embeddings [retain shots, D]
    forget: Tensor  # [forget shots, D]


def measure_quality(base: Draw, unlearned: Draw, networks: Networks, plan: Plan, settings: dict[str, Any]) -> Quality:
    """The figures of the retain pictures, and CLIPScore of the forget pictures too.

    `settings` describes how the pictures are drawn; CLIP and seeds are added. Raises ValueError when there are fewer
    than two retain pictures, before anything is drawn, or one has NaN.
    """
    check_pictures(plan)
    before, after = see(base, networks, plan, BASE), see(unlearned, networks, plan, UNLEARNED)
    return quality_of(before, after, networks.clip, plan, settings)


def check_pictures(plan: Plan) -> None:
    """Raises ValueError when there are fewer than two retain pictures."""
    if len(plan.retain_shots) < 2:
        raise ValueError("retain prompts: a Fréchet distance needs two pictures or more; add a prompt or a seed")


def see(draw: Draw, networks: Networks, plan: Plan, name: str) -> Seen:
    """Draws a model's pictures in chunks and looks at them; `name` is for messages. Raises ValueError for NaN."""
    alexnet, inception, retain, forget = [], [], [], []
    for chunk in chunks(plan.retain_shots):
        pictures = drawn(draw, chunk, name)
        alexnet.append(alexnet_features(networks.alexnet, pictures))
        retain.append(networks.clip.embed_pictures(pictures))
        if networks.fid:
            inception.append(networks.fid.features(pictures))
    for chunk in chunks(plan.forget_shots):
        forget.append(networks.clip.embed_pictures(drawn(draw, chunk, name)))
    return Seen(
        torch.cat(alexnet),
        torch.cat(inception) if inception else None,
        torch.cat(retain),
        torch.cat(forget) if forget else retain[0][:0],
    )


def quality_of(base: Seen, unlearned: Seen, clip: Clip, plan: Plan, settings: dict[str, Any]) -> Quality:
    """The figures of what was seen."""
    fid = None
    if base.inception is not None and unlearned.inception is not None:
        fid = frechet_distance(base.inception, unlearned.inception)
    return Quality(
        frechet_alexnet=frechet_distance(base.alexnet, unlearned.alexnet),
        fid=fid,
        cmmd=cmmd(base.retain, unlearned.retain),
        clip_score=_clip_score(clip, base.retain, unlearned.retain, plan.retain_shots),
        forget_clip_score=_clip_score(clip, base.forget, unlearned.forget, plan.forget_shots) if plan.forget else None,
        plan=plan,
        settings={**settings, **plan.settings(), "CLIP": clip.name},
    )


def _clip_score(clip: Clip, base: Tensor, unlearned: Tensor, shots: Sequence[Shot]) -> ClipScore:
    """Of embedded pictures, one for each shot."""
    prompts = [prompt for prompt, _ in shots]
    return ClipScore(clip.scores(unlearned, prompts).mean().item(), clip.scores(base, prompts).mean().item())
