"""Which concept and style of the shipped model's world a picture shows: the nearest reference in AlexNet's features."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from ..metrics.lpips import Lpips
from ..metrics.plan import batches
from .world import parse

REFERENCES = Path(__file__).parent / "model" / "judge.safetensors"
LAYERS = (1, 2)  # AlexNet's second and third ReLU: they see shape and hand, and still read soft pictures
GRID = 3  # cells a side that a layer's activations are averaged in, so that small shifts don't matter


class Verdict(NamedTuple):
    """What a picture shows."""

    concept: str
    style: str


class Accuracy(NamedTuple):
    """Share of pictures that show what their prompt names, each in 0..1."""

    concept: float
    style: float


class Judge:
    """Finds the (concept, style) whose mean training picture is nearest, by the cosine of centred features.

    A `Judge` of metrics.forgetting. AlexNet's weights are loaded at the first verdict, and looked for in `folders`
    first (see `backbones.load_features`, whose errors that verdict raises).
    """

    name = "nearest picture (AlexNet features)"

    def __init__(
        self, references: Tensor, concepts: Sequence[str], styles: Sequence[str], folders: Sequence[Path] = ()
    ) -> None:
        """`references` [concepts, styles, D]: the mean features of each (concept, style)."""
        self.domains = {"concept": tuple(concepts), "style": tuple(styles)}
        self._labels = [Verdict(concept, style) for concept in concepts for style in styles]
        flat = references.float().flatten(0, 1)
        self._centre = flat.mean(0)
        self._references = F.normalize(flat - self._centre, dim=1)
        self._folders = folders

    @classmethod
    def load(cls, path: Path = REFERENCES, folders: Sequence[Path] = (), by_concept: bool = False) -> Judge:
        """A judge from the file that recipes.tiny.judge wrote. Raises FileNotFoundError when it is not there.

        With by_concept, a concept's references are averaged over its styles, and every verdict's style is "any".
        """
        with safe_open(path, "pt") as file:
            names = {key: json.loads(value) for key, value in file.metadata().items()}
            references, styles = file.get_tensor("references"), names["styles"]
            if by_concept:
                references, styles = references.float().mean(1, keepdim=True), ["any"]
            return cls(references, names["concepts"], styles, folders)

    def verdicts(self, pictures: Tensor) -> list[Verdict]:
        """What each of the pictures [B, H, W, 3] in 0..1 shows."""
        nearest = [(batch - self._centre) @ self._references.T for batch in features(self._alexnet, pictures)]
        return [self._labels[index] for index in torch.cat(nearest).argmax(1).tolist()]

    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        """For each of `domains`, concept and style, what each of the pictures [B, H, W, 3] in 0..1 shows."""
        verdicts = self.verdicts(pictures)
        return {domain: [getattr(verdict, domain) for verdict in verdicts] for domain in domains}

    def accuracy(self, pictures: Tensor, prompts: Sequence[str]) -> Accuracy:
        """Share of pictures [B, H, W, 3] in 0..1 that show the concept, and the style, that their own prompts name.

        Raises ValueError when there is not one prompt for each picture, naming a concept and a style.
        """
        named = [parse(prompt) for prompt in prompts]
        vague = [prompt for prompt, words in zip(prompts, named, strict=True) if None in words]
        if vague:
            raise ValueError(f"accuracy needs prompts that name a concept and a style; {vague[0]!r} does not")
        if len(named) != len(pictures):
            raise ValueError(f"accuracy needs one prompt for each picture, got {len(named)} for {len(pictures)}")
        hits = [(v.concept == c, v.style == s) for v, (c, s) in zip(self.verdicts(pictures), named, strict=True)]
        return Accuracy(*(sum(column) / len(hits) for column in zip(*hits, strict=True)))

    @cached_property
    def _alexnet(self) -> Lpips:
        return Lpips("alex", self._folders)


def features(alexnet: Lpips, pictures: Tensor) -> Iterator[Tensor]:
    """[B, H, W, 3], uint8 or in 0..1 -> batches [b, D] of unit length.

    The square root keeps a few strong channels from deciding alone (as RootSIFT does, Arandjelovic and Zisserman 2012).
    """
    for batch in batches(pictures):
        activations = alexnet.activations(batch / 255 if batch.dtype == torch.uint8 else batch)
        pooled = [F.adaptive_avg_pool2d(activations[layer], GRID).flatten(1).sqrt() for layer in LAYERS]
        yield F.normalize(torch.cat([F.normalize(values, dim=1) for values in pooled], dim=1), dim=1)
