"""What every metric asks of a model: pictures of (prompt, seed) pairs, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

Shot = tuple[str, int]  # prompt, seed
Draw = Callable[[Sequence[Shot]], Tensor]  # pictures [B, H, W, 3] in 0..1, the same for the same shot

CHUNK = 16  # pictures in memory together
BASE, UNLEARNED = "base model", "unlearned model"  # in messages


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


def check_size(width: int, height: int, multiple: int, smallest: int) -> None:
    """Raises ValueError for sides in pixels that a model draws in steps of `multiple`, or a metric below `smallest`."""
    for name, side in (("width", width), ("height", height)):
        if side % multiple:
            raise ValueError(f"{name}: {side} pixels; this model draws sides that are multiples of {multiple}")
        if side < smallest:
            raise ValueError(f"{name}: {side} pixels; the metric needs sides of {smallest} pixels or more")
