"""Which prompts are measured: those that are given, or where there are none, what the patch's record leads to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from .patch import Record
from .prompts import clashing, held_out, left_out, quoted, without

NAMED = 30  # prompts of a list in a sentence


class MeasuredPrompts(NamedTuple):
    """The prompts, and a sentence for each list that was taken from elsewhere, or not as it was given."""

    forget: tuple[str, ...]
    retain: tuple[str, ...]
    told: tuple[str, ...]


def measured_prompts(
    forget: tuple[str, ...],
    retain: tuple[str, ...],
    record: Record | None,
    wordings: Sequence[str] = (),
    box: str = "retain",
) -> MeasuredPrompts:
    """The prompts of two boxes.

    With a patch's record an empty forget box stands for what the patch forgets. Retain prompts that are forget prompts
    too, or `wordings` of them, are left out; where none is left in their box, which sentences call `box`, it stands for
    `held_out` ones.
    """
    told = []
    if record and not forget:
        forget = tuple(record.forget)
        told.append(f"forget prompts, from the patch: {_named(forget)}")
    if clashes := clashing([*forget, *wordings], retain):
        retain = without(retain, clashes)
        told.append(left_out(clashes, box))
    if record and not retain:
        forgotten = [*forget, *wordings, *record.forget]
        retain = held_out(forgotten, trained_prompts(record))
        told.append(f"{box} prompts, which training did not see: {_named(retain)}")
    return MeasuredPrompts(forget, retain, tuple(told))


def trained_prompts(record: Record) -> list[str]:
    """Every prompt that a patch was trained on, or solved for."""
    return [*record.forget, *record.overwrite, *record.retain, *chain.from_iterable((record.wordings or {}).values())]


def _named(prompts: Sequence[str]) -> str:
    more = len(prompts) - NAMED
    return ", ".join(map(quoted, prompts[:NAMED])) + (f" and {more} more" if more > 0 else "")
