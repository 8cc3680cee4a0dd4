"""What is drawn: pictures of (prompt, seed) pairs, some at a time, which every metric asks of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..model import check_size
from ..prompts import check_measured, quoted
from ..sampling import SEEDS, batch_size

PromptSeed = tuple[str, int]  # which picture
Draw = Callable[[Sequence[PromptSeed]], Tensor]  # pictures [B, H, W, 3] in 0..1, the same for the same prompt and seed

CHUNK = 16  # pictures in memory together, at most
BATCH_PIXELS = 4 * 512**2  # of pictures in one call of a network: a single one at 1024 x 1024
BASE, UNLEARNED = "base model", "unlearned model"  # in messages


@dataclass(frozen=True)
class Plan:
    """What is measured: each retain prompt with each of `seeds`, each forget prompt with each of `forget_seeds`.

    Raises ValueError when there is no retain prompt, or a prompt is in both.
    """

    retain: tuple[str, ...]
    forget: tuple[str, ...]
    seeds: tuple[int, ...]
    forget_seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        check_measured(self.retain, self.forget)

    @classmethod
    def of(cls, retain: Iterable[str], forget: Iterable[str], seed: int, seeds: int, forget_seeds: int) -> Plan:
        """With so many seeds from `seed` upwards, after 2^64 - 1 from 0. A prompt that comes twice counts once."""
        counts = (tuple((seed + index) % SEEDS for index in range(count)) for count in (seeds, forget_seeds))
        return cls(distinct(retain), distinct(forget), *counts)

    @property
    def retain_prompt_seeds(self) -> list[PromptSeed]:
        """Prompt by prompt."""
        return prompt_seeds_of(self.retain, self.seeds)

    @property
    def forget_prompt_seeds(self) -> list[PromptSeed]:
        """Prompt by prompt."""
        return prompt_seeds_of(self.forget, self.forget_seeds)

    @property
    def prompt_seeds(self) -> list[PromptSeed]:
        """All of one model, retain prompts first."""
        return self.retain_prompt_seeds + self.forget_prompt_seeds

    @property
    def chunks(self) -> list[Sequence[PromptSeed]]:
        """As `prompt_seeds`, in parts of one kind that every figure asks for, so that one process has all of each."""
        return [*chunks(self.retain_prompt_seeds), *chunks(self.forget_prompt_seeds)]

    def settings(self) -> dict[str, str]:
        """The seeds, for a report."""
        seeds = {"seeds": span(self.seeds)}
        return {**seeds, "forget seeds": span(self.forget_seeds)} if self.forget else seeds


def distinct(prompts: Iterable[str]) -> tuple[str, ...]:
    """The first of those that are equal but for upper and lower case."""
    found: dict[str, str] = {}
    for prompt in prompts:
        found.setdefault(prompt.casefold(), prompt)
    return tuple(found.values())


def span(seeds: Sequence[int]) -> str:
    """`1000 to 1003` for consecutive seeds."""
    return f"{seeds[0]} to {seeds[-1]}"


def prompt_seeds_of(prompts: Sequence[str], seeds: Sequence[int]) -> list[PromptSeed]:
    """Each prompt with each seed, prompt by prompt."""
    return [(prompt, seed) for prompt in prompts for seed in seeds]


def chunks(prompt_seeds: Sequence[PromptSeed]) -> Iterator[Sequence[PromptSeed]]:
    """`prompt_seeds` in runs of CHUNK."""
    return (prompt_seeds[start : start + CHUNK] for start in range(0, len(prompt_seeds), CHUNK))


def drawn(draw: Draw, prompt_seeds: Sequence[PromptSeed], model: str) -> Tensor:
    """The pictures, after a look at their values; `model` names who drew them.

    Raises ValueError that names the first prompt and seed whose picture is NaN or infinite.
    """
    pictures = draw(prompt_seeds)
    for (prompt, seed), picture in zip(prompt_seeds, pictures, strict=True):
        if not picture.isfinite().all():
            raise ValueError(
                f"{model}: its picture of {quoted(prompt)} with seed {seed} has NaN or infinite values; "
                "draw with another precision, sampler or cfg, or train with a lower learning rate"
            )
    return pictures


def pictures_at_once(width: int, height: int) -> int:
    """How many pictures of this size in pixels a network takes at once."""
    return batch_size(width, height, BATCH_PIXELS)


def batches(pictures: Tensor) -> tuple[Tensor, ...]:
    """[B, H, W, 3] in parts that a network takes at once."""
    height, width = pictures.shape[1:3]
    return pictures.split(pictures_at_once(width, height))


def check_measurable(width: int, height: int, multiple: int, smallest: int = 1) -> None:
    """Raises ValueError for sides in pixels that a model draws in steps of `multiple`, or a metric below `smallest`."""
    check_size(width, height, multiple)
    for name, side in (("width", width), ("height", height)):
        if side < smallest:
            raise ValueError(f"{name}: {side} pixels; the metric needs sides of {smallest} pixels or more")
