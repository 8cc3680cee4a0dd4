"""What every metric asks of a model: pictures of (prompt, seed) pairs, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..model import check_size
from ..prompts import check_measured

Shot = tuple[str, int]  # prompt, seed
Draw = Callable[[Sequence[Shot]], Tensor]  # pictures [B, H, W, 3] in 0..1, the same for the same shot

CHUNK = 16  # pictures in memory together, at most
BATCH_PIXELS = 4 * 512**2  # of pictures in one call of a network: a single one at 1024 x 1024
BASE, UNLEARNED = "base model", "unlearned model"  # in messages
SEEDS = 2**64  # that a generator takes


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
    def retain_shots(self) -> list[Shot]:
        """Prompt by prompt."""
        return shots_of(self.retain, self.seeds)

    @property
    def forget_shots(self) -> list[Shot]:
        """Prompt by prompt."""
        return shots_of(self.forget, self.forget_seeds)

    @property
    def shots(self) -> list[Shot]:
        """All of one model, retain prompts first."""
        return self.retain_shots + self.forget_shots

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


def shots_of(prompts: Sequence[str], seeds: Sequence[int]) -> list[Shot]:
    """Each prompt with each seed, prompt by prompt."""
    return [(prompt, seed) for prompt in prompts for seed in seeds]


def chunks(shots: Sequence[Shot]) -> Iterator[Sequence[Shot]]:
    """`shots` in runs of CHUNK."""
    return (shots[start : start + CHUNK] for start in range(0, len(shots), CHUNK))


def drawn(draw: Draw, shots: Sequence[Shot], model: str) -> Tensor:
    """The pictures, after a look at their values; `model` names who drew them.

    Raises ValueError that names the first shot whose picture is NaN or infinite.
    """
    pictures = draw(shots)
    for (prompt, seed), picture in zip(shots, pictures, strict=True):
        if not picture.isfinite().all():
            raise ValueError(
                f"{model}: its picture of {prompt!r} with seed {seed} has NaN or infinite values; "
                "draw with another precision, sampler or cfg, or train with a lower learning rate"
            )
    return pictures


def batch_size(width: int, height: int) -> int:
    """How many pictures of this size in pixels a network takes at once."""
    return min(CHUNK, max(1, BATCH_PIXELS // (width * height)))


def batches(pictures: Tensor) -> tuple[Tensor, ...]:
    """[B, H, W, 3] in parts that a network takes at once."""
    height, width = pictures.shape[1:3]
    return pictures.split(batch_size(width, height))


def check_measurable(width: int, height: int, multiple: int, smallest: int = 1) -> None:
    """Raises ValueError for sides in pixels that a model draws in steps of `multiple`, or a metric below `smallest`."""
    check_size(width, height, multiple)
    for name, side in (("width", width), ("height", height)):
        if side < smallest:
            raise ValueError(f"{name}: {side} pixels; the metric needs sides of {smallest} pixels or more")
