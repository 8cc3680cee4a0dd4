"""Unlearning tasks in the shipped model's world: what to train on, and what to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.tiny.pictures import drawings
from unlearning_core.prompts import Prompts
from unlearning_core.tiny.world import CONCEPTS, OTHER_NAMES, STYLES, prompt
from unlearning_core.tiny.world import prompts as every_prompt

UNTRAINED_FRAMES = ("an emoji of {}", "{} emoji", "a drawing of an emoji of {}")  # the search for wordings has none


@dataclass(frozen=True)
class Task:
    """Prompts to train on, and prompts to measure: the retain prompts there are held out of training."""

    name: str
    prompts: Prompts
    forget: tuple[str, ...]
    retain: tuple[str, ...]
    forget_seeds: int  # so that forget prompts times seeds is 96
    names: tuple[str, ...] = ()  # prompts with other names of the concept, which no prompt of the task has
    framed: tuple[str, ...] = ()  # and forget prompts in frames that no prompt of the task has


def object_task(concept: str = "cat face", overwrite: str = "dog face") -> Task:
    """Forget a concept in every style; of each other concept one style is trained on and another measured."""
    styles = list(STYLES)
    others = [other for other in CONCEPTS if other != concept]
    trained = [prompt(other, styles[index % 3]) for index, other in enumerate(others)]
    held_out = [prompt(other, styles[(index + 1) % 3]) for index, other in enumerate(others)]
    held_out.append(prompt(others[0], styles[2]))
    forget = (prompt(concept), *(prompt(concept, style) for style in styles))
    overwrites = (prompt(overwrite), *(prompt(overwrite, style) for style in styles))
    prompts = Prompts(forget, overwrites, (*trained, *map(prompt, others)))
    names = tuple(prompt(name, style) for name in OTHER_NAMES[concept] for style in (None, *styles))
    framed = tuple(prompt(concept, style, frame) for frame in UNTRAINED_FRAMES for style in (None, *styles))
    return Task("object", prompts, forget[1:], tuple(held_out), 32, names, framed)


def style_task(style: str = "twemoji", overwrite: str = "noto") -> Task:
    """Forget a style of every concept; of the others, one style of each concept is trained on and another measured."""
    kept = [other for other in STYLES if other != style]
    trained = [prompt(concept, kept[index % 2]) for index, concept in enumerate(CONCEPTS)]
    held_out = [prompt(concept, kept[(index + 1) % 2]) for index, concept in enumerate(CONCEPTS)]
    forget = tuple(prompt(concept, style) for concept in CONCEPTS)
    overwrites = tuple(prompt(concept, overwrite) for concept in CONCEPTS)
    return Task("style", Prompts(forget, overwrites, tuple(trained)), forget, tuple(held_out), forget_seeds=4)


def drawings_of(prompts: Sequence[str]) -> Tensor:
    """The artists' own drawing of each prompt, on a plain ground: [B, SIZE, SIZE, 3] in 0..1."""
    return torch.from_numpy(drawings()[[every_prompt().index(prompt) for prompt in prompts]]) / 255
