"""What to forget, what to draw instead and what to keep, as prompts."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .words import forms

ARROW = "=>"

DEFAULT_RETAIN = (  # everyday subjects and styles, far from each other
    "a photo of a person",
    "a portrait of a woman",
    "a portrait of a man",
    "a group of people in a street",
    "a photo of a dog",
    "a photo of a cat",
    "a bird on a branch",
    "a horse in a field",
    "a bowl of fruit",
    "a plate of food",
    "a flower in a vase",
    "a tree in a park",
    "a landscape with mountains and a lake",
    "a beach at sunset",
    "a city skyline at night",
    "an old house",
    "a car on a road",
    "a train in a station",
    "a room with furniture",
    "a cup of coffee on a table",
    "an oil painting",
    "a pencil drawing",
    "a watercolour of a village",
    "a black and white photograph",
)
DEFAULT_MEASURED = (  # other ones of the same kind, so that what was held in training is not what is measured
    "a boy on a bicycle",
    "a photo of a child",
    "a chef in a kitchen",
    "an elderly couple",
    "a rabbit in the grass",
    "an elephant",
    "a fish under water",
    "a butterfly",
    "a loaf of bread",
    "a pizza",
    "a glass of wine",
    "a forest in autumn",
    "a desert under a blue sky",
    "a waterfall",
    "a castle on a hill",
    "a bridge over a river",
    "a lighthouse by the sea",
    "a ship in a harbour",
    "an airplane",
    "a bookshelf",
    "a wooden chair",
    "a guitar",
    "a clock on a wall",
    "a charcoal sketch of a market",
)
SMALL_WORDS = ("a", "an", "the", "of", "in", "on", "at", "by", "with", "and", "to")
KINDS_OF_PICTURE = ("photo", "photograph", "picture", "image", "portrait", "painting", "drawing", "style")
NO_SUBJECT = {*SMALL_WORDS, *KINDS_OF_PICTURE}
LONGEST = 100  # characters of a prompt in a message


def lines(text: str) -> tuple[str, ...]:
    """The prompts of a text box: one per line, without blank lines and outer spaces."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def default_retain(forget: Sequence[str]) -> tuple[str, ...]:
    """DEFAULT_RETAIN without the prompts that name a subject of a forget prompt, in singular or plural, and in British
    or American spelling.
    """
    return _of_other_things(DEFAULT_RETAIN, forget)


def held_out(forget: Sequence[str], trained: Iterable[str]) -> tuple[str, ...]:
    """DEFAULT_MEASURED without the prompts that `default_retain` would leave out, and without those trained on."""
    return without(_of_other_things(DEFAULT_MEASURED, forget), clashing(trained, DEFAULT_MEASURED))


def _of_other_things(prompts: Iterable[str], forget: Sequence[str]) -> tuple[str, ...]:
    forgotten = set[str]().union(*map(_subjects, forget))
    exact = {prompt.casefold() for prompt in forget}
    return tuple(prompt for prompt in prompts if prompt.casefold() not in exact and not _subjects(prompt) & forgotten)


def _subjects(prompt: str) -> set[str]:
    """All forms of the words, and of neighbours as one word: `water colour` is watercolour."""
    words = [word for word in re.findall(r"\w+", prompt.casefold()) if len(word) > 1 and word not in NO_SUBJECT]
    return set[str]().union(*map(forms, [*words, *map("".join, pairwise(words))])) - NO_SUBJECT


def clashing(forget: Iterable[str], retain: Iterable[str]) -> tuple[str, ...]:
    """The retain prompts that are forget prompts too, in upper or lower case."""
    forgotten = {prompt.casefold() for prompt in forget}
    return tuple(prompt for prompt in retain if prompt.casefold() in forgotten)


def without(retain: Iterable[str], clashes: Iterable[str]) -> tuple[str, ...]:
    """The retain prompts that clash with no forget prompt."""
    return tuple(prompt for prompt in retain if prompt not in set(clashes))


def left_out(clashes: Sequence[str], box: str = "retain") -> str:
    """A sentence for prompts of a box that clash; empty without any."""
    named = ", ".join(map(quoted, clashes))
    return f"{box} prompts: {named} left out, being a forget prompt too" if clashes else ""


def quoted(prompt: str) -> str:
    """A prompt for a message: in quotes, on one line, with its middle left out when it is long."""
    shortening = reprlib.Repr()
    shortening.maxstring = LONGEST
    return shortening.repr(prompt)


def check_characters(prompts: Iterable[str]) -> None:
    """Raises ValueError for a prompt with a control character that is no space, or half of a surrogate pair."""
    for prompt in prompts:
        for character in prompt:
            if unicodedata.category(character) in ("Cc", "Cs") and not character.isspace():
                raise ValueError(f"prompt {quoted(prompt)}: {character!r} in it is no text; remove it")


def check_measured(retain: Sequence[str], forget: Sequence[str]) -> None:
    """Raises ValueError when there is nothing to measure, a prompt is to be both kept and forgotten, or is no text."""
    check_characters([*retain, *forget])
    if not retain:
        raise ValueError("retain prompts: empty; write at least one prompt that should stay as it was, one per line")
    _check_apart(forget, retain)


def _check_apart(forget: Sequence[str], retain: Sequence[str]) -> None:
    if both := clashing(forget, retain):
        raise ValueError(f"retain prompts: {quoted(both[0])} is a forget prompt too; remove it from one of the two")


@dataclass(frozen=True)
class Prompts:
    """The prompts of one unlearning run.

    `overwrite` has one prompt for all forget prompts, or one for each; the empty prompt is a valid target. Raises
    ValueError when there is no forget prompt, the counts do not match, a prompt is to be forgotten and retained, or is
    no text.
    """

    forget: tuple[str, ...]
    overwrite: tuple[str, ...] = ("",)
    retain: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_characters([*self.forget, *self.overwrite, *self.retain])
        if not self.forget or not all(self.forget):
            raise ValueError("forget prompts: empty; write at least one prompt to forget, one per line")
        if len(self.overwrite) not in (1, len(self.forget)):
            raise ValueError(
                f"overwrite prompt: {len(self.overwrite)} lines for {len(self.forget)} forget prompts; "
                "write one line for all of them, or one line each"
            )
        _check_apart(self.forget, self.retain)
        circular = {prompt.casefold() for prompt in self.forget} & {prompt.casefold() for prompt in self.overwrite}
        same = [forget for forget, overwrite in self.pairs if forget.casefold() == overwrite.casefold()]
        if same:
            raise ValueError(
                f"overwrite prompt: {quoted(same[0])} would be overwritten by itself; write another prompt"
            )
        if circular:
            raise ValueError(f"overwrite prompt: {quoted(min(circular))} is to be forgotten too; write another prompt")

    @classmethod
    def parse(cls, forget: str, overwrite: str, retain: str) -> Prompts:
        """From the texts of three boxes, one prompt per line.

        A forget line may name its own target, `a cat => a dog`; the others take the overwrite box, which is the empty
        prompt when it is empty. Retain lines that are forget prompts too are left out. An empty retain box holds
        `default_retain`.
        """
        parts = [[side.strip() for side in line.partition(ARROW)] for line in lines(forget)]
        twice = next((forget for forget, _, target in parts if ARROW in target), None)
        if twice is not None:
            raise ValueError(f"forget prompts: {quoted(twice)} has two '{ARROW}'; write one target for each line")
        shared = lines(overwrite) or ("",)
        if any(arrow for _, arrow, _ in parts):
            if len(shared) > 1:
                raise ValueError(
                    f"overwrite prompt: {len(shared)} lines beside forget prompts with '{ARROW}'; write one line, "
                    "for the forget prompts without it"
                )
            shared = tuple(target if arrow else shared[0] for _, arrow, target in parts)
        forgotten = tuple(prompt for prompt, _, _ in parts)
        held = lines(retain)
        return cls(forgotten, shared, without(held, clashing(forgotten, held)) or default_retain(forgotten))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(forget prompt, overwrite prompt) for each forget prompt."""
        overwrite = self.overwrite * len(self.forget) if len(self.overwrite) == 1 else self.overwrite
        return tuple(zip(self.forget, overwrite, strict=True))

    def reworded(self, wordings: Mapping[str, Sequence[str]]) -> Prompts:
        """With other wordings of each forget prompt, which have its overwrite prompt."""
        pairs = [(text, overwrite) for forget, overwrite in self.pairs for text in (forget, *wordings.get(forget, ()))]
        first = dict(reversed(pairs))  # a wording of two prompts belongs to the first
        return Prompts(tuple(dict(pairs)), tuple(first[text] for text in dict(pairs)), self.retain)


def held_prompts(prompts: Prompts) -> list[str]:
    """What L_help holds: the retain prompts, the empty prompt and the overwrite targets."""
    return list(dict.fromkeys([*prompts.retain, "", *prompts.overwrite]))


def all_prompts(prompts: Prompts) -> list[str]:
    """Every prompt that unlearning encodes."""
    return list(dict.fromkeys([*prompts.forget, *prompts.overwrite, *held_prompts(prompts)]))
