"""Forgetting as a judge sees it: UA, IRA and CRA of UnlearnCanvas (Zhang et al. 2024, arXiv 2402.11846).

A prompt like `a frog in noto style` names a label in each of two domains, concept and style. When a label is forgotten,
its domain is the forgotten one, and the others are the cross domains.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from .drawing import Draw, Shot, chunks, drawn

Domains = Mapping[str, Sequence[str]]  # domain -> its labels


class Judge(Protocol):
    """Says what a picture shows."""

    @property
    def name(self) -> str:
        """For a report."""
        ...

    @property
    def domains(self) -> Domains:
        """Everything that it can tell apart."""
        ...

    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        """For each of `domains`, the label that each of the pictures [B, H, W, 3] in 0..1 shows."""
        ...


class Target(NamedTuple):
    """What is to be forgotten."""

    domain: str
    label: str


@dataclass(frozen=True)
class Accuracies:
    """Shares of pictures, each in 0..1, or None where no picture counts."""

    ua: float | None  # unlearning accuracy: forget pictures that do not show the forgotten label
    ira: float | None  # in-domain retain accuracy: retain pictures that show their own label of the forgotten domain
    cra: float | None  # cross-domain retain accuracy: labels of other domains that the retain pictures show rightly
    right: float | None  # all pictures, forget ones too, that show the forgotten domain's label in their prompt


def label_of(prompt: str, labels: Sequence[str]) -> str | None:
    """The label that a prompt names as whole words, in either case: the longest if there are several, else None."""
    named = [label for label in labels if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", prompt, re.IGNORECASE)]
    return max(named, key=len, default=None)


def target_of(domains: Domains, forget: Sequence[str]) -> Target:
    """What the forget prompts have in common: the first domain in which all of them name the same label.

    Raises ValueError when there is none.
    """
    for domain, labels in domains.items():
        named = {label_of(prompt, labels) for prompt in forget}
        if len(named) == 1 and (label := named.pop()):
            return Target(domain, label)
    known = "; or one of ".join(", ".join(labels) for labels in domains.values())
    raise ValueError(
        f"the forget prompts {list(forget)} share nothing that the judge knows: name one of {known}, in all of them"
    )


class Tally:
    """Counts verdicts as pictures come, so that the pictures need not be kept."""

    def __init__(self, judge: Judge, forget: Sequence[str]) -> None:
        """Prompts that are not among `forget` are retain prompts. Raises ValueError as `target_of` does."""
        self.judge = judge
        self.target = target_of(judge.domains, forget)
        self._forget = set(forget)
        self._hits: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    def add(self, pictures: Tensor, prompts: Sequence[str]) -> None:
        """Pictures [B, H, W, 3] in 0..1 and the prompt of each; raises ValueError when the counts differ."""
        if len(pictures) != len(prompts):
            raise ValueError(f"the judge needs one prompt for each picture, got {len(prompts)} for {len(pictures)}")
        for forgotten in (True, False):
            index = [i for i, prompt in enumerate(prompts) if (prompt in self._forget) is forgotten]
            if index:
                domains = [self.target.domain] if forgotten else list(self.judge.domains)
                verdicts = self.judge.classify(pictures[index], domains)
                for domain, labels in verdicts.items():
                    for position, label in zip(index, labels, strict=True):
                        self._count(domain, label, prompts[position], forgotten)

    def result(self) -> Accuracies:
        """The figures so far."""
        return Accuracies(**{name: self._share(name) for name in ("ua", "ira", "cra", "right")})

    def _count(self, domain: str, shown: str, prompt: str, forgotten: bool) -> None:
        asked = label_of(prompt, self.judge.domains[domain])
        inside = domain == self.target.domain
        if forgotten:
            self._vote("ua", shown != self.target.label)
        elif asked:
            self._vote("ira" if inside else "cra", shown == asked)
        if inside and asked:
            self._vote("right", shown == asked)

    def _vote(self, figure: str, hit: bool) -> None:
        self._hits[figure] += hit
        self._totals[figure] += 1

    def _share(self, figure: str) -> float | None:
        return self._hits[figure] / self._totals[figure] if self._totals[figure] else None


def accuracies(judge: Judge, pictures: Tensor, prompts: Sequence[str], forget: Sequence[str]) -> Accuracies:
    """UA, IRA and CRA of pictures [B, H, W, 3] in 0..1, drawn under `prompts`; those among `forget` count for UA.

    On the base's pictures the same call gives the judge's own accuracy. Raises ValueError as `Tally` does.
    """
    tally = Tally(judge, forget)
    tally.add(pictures, prompts)
    return tally.result()


def tallied(judge: Judge, forget: Sequence[str], draw: Draw, shots: Sequence[Shot], model: str) -> Accuracies:
    """UA, IRA and CRA of the pictures of `shots`, drawn and judged in chunks; `model` names who draws, in messages.

    Raises ValueError as `Tally` does, and for a picture with NaN.
    """
    tally = Tally(judge, forget)
    for chunk in chunks(shots):
        tally.add(drawn(draw, chunk, model), [prompt for prompt, _ in chunk])
    return tally.result()
