"""Figures besides the integrity loss: CLIPScore, CMMD, and Fréchet distances from the base's pictures.

They see a set of pictures as a whole, or a picture and its prompt, and so miss that another picture took its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..processes import current
from .clip import Clip, cmmd
from .frechet import alexnet_features, frechet_distance
from .inception import Fid
from .lpips import Lpips
from .plan import BASE, UNLEARNED, Draw, Plan, PromptSeed, drawn


@dataclass(frozen=True)
class Networks:
    """What looks at the pictures."""

    alexnet: Lpips
    clip: Clip
    fid: Fid | None = None


@dataclass(frozen=True)
class Embeddings:
    """One model's pictures as the networks see them: a row for each (prompt, seed) of the plan."""

    alexnet: Tensor  # [retain pictures, 256]
    inception: Tensor | None  # [retain pictures, 2048]
    retain: Tensor  # CLIP embeddings [retain pictures, D]
    forget: Tensor  # [forget pictures, D]


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
    base_embeddings: Embeddings = field(repr=False, compare=False)
    embeddings: Embeddings = field(repr=False, compare=False)  # of the unlearned model's pictures

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        scores = {name: getattr(self, name) for name in ("clip_score", "forget_clip_score")}
        return {
            "frechet_alexnet": self.frechet_alexnet,
            "fid": self.fid,
            "cmmd": self.cmmd,
            **{name: score and asdict(score) for name, score in scores.items()},
            "plan": asdict(self.plan),
            "settings": self.settings,
        }


def measure_quality(base: Draw, unlearned: Draw, networks: Networks, plan: Plan, settings: dict[str, Any]) -> Quality:
    """The figures of the retain pictures, and CLIPScore of the forget pictures too.

    `settings` describes how the pictures are drawn; CLIP and seeds are added. Raises ValueError when there are fewer
    than two retain pictures, before anything is drawn, or one has NaN.
    """
    check_pictures(plan)
    before, after = embed(base, networks, plan, BASE), embed(unlearned, networks, plan, UNLEARNED)
    return quality_of(before, after, networks.clip, plan, settings)


def check_pictures(plan: Plan) -> None:
    """Raises ValueError when there are fewer than two retain pictures."""
    if len(plan.retain_prompt_seeds) < 2:
        raise ValueError("retain prompts: a Fréchet distance needs two pictures or more; add a prompt or a seed")


def embed(draw: Draw, networks: Networks, plan: Plan, name: str) -> Embeddings:
    """Draws a model's pictures in chunks and embeds them; `name` is for messages. Raises ValueError for NaN.

    Processes share the chunks.
    """

    def look(chunk: Sequence[PromptSeed]) -> dict[str, Tensor]:
        pictures = drawn(draw, chunk, name)
        seen = {"CLIP": networks.clip.embed_pictures(pictures)}
        if chunk[0][0] in plan.forget:
            return seen
        seen["AlexNet"] = alexnet_features(networks.alexnet, pictures)
        return {**seen, "Inception": networks.fid.features(pictures)} if networks.fid else seen

    parts = list(current().ordered(plan.chunks, look))
    cut = len(plan.retain_prompt_seeds)
    clip = torch.cat([part["CLIP"] for part in parts])
    alexnet, inception = ([part[network] for part in parts if network in part] for network in ("AlexNet", "Inception"))
    return Embeddings(torch.cat(alexnet), torch.cat(inception) if inception else None, clip[:cut], clip[cut:])


def quality_of(base: Embeddings, unlearned: Embeddings, clip: Clip, plan: Plan, settings: dict[str, Any]) -> Quality:
    """The figures of both models' embedded pictures."""
    fid = forget = None
    if plan.forget:
        forget = _clip_score(clip, base.forget, unlearned.forget, plan.forget_prompt_seeds)
    if base.inception is not None and unlearned.inception is not None:
        fid = frechet_distance(base.inception, unlearned.inception)
    return Quality(
        frechet_alexnet=frechet_distance(base.alexnet, unlearned.alexnet),
        fid=fid,
        cmmd=cmmd(base.retain, unlearned.retain),
        clip_score=_clip_score(clip, base.retain, unlearned.retain, plan.retain_prompt_seeds),
        forget_clip_score=forget,
        plan=plan,
        settings={**settings, **plan.settings(), "CLIP": clip.name},
        base_embeddings=base,
        embeddings=unlearned,
    )


def _clip_score(clip: Clip, base: Tensor, unlearned: Tensor, prompt_seeds: Sequence[PromptSeed]) -> ClipScore:
    """Of embedded pictures, one for each prompt and seed."""
    prompts = [prompt for prompt, _ in prompt_seeds]
    return ClipScore(clip.scores(unlearned, prompts).mean().item(), clip.scores(base, prompts).mean().item())
