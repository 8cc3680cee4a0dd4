"""Forgetting as a judge sees it: UA, IRA and CRA of UnlearnCanvas (Zhang et al. 2024, arXiv 2402.11846).

A prompt like `a frog in noto style` names a label in each of two domains, concept and style. When a label is forgotten,
its domain is the forgotten one, and the others are the cross domains.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..prompts import quoted
from .plan import BASE, UNLEARNED, Draw, Plan, PromptSeed, chunks, drawn

Domains = Mapping[str, Sequence[str]]  # domain -> its labels

NOT_ASKED = -1
SHARES = ("ua", "ira", "cra", "right")


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
class Count:
    """One prompt's part in a figure."""

    prompt: str
    kind: str  # retain or forget
    figure: str  # ua, ira, cra or right
    hits: int
    votes: int  # of its pictures; in cra, of each cross domain


@dataclass(frozen=True)
class Accuracies:
    """Shares of pictures, each in 0..1, or None where no picture counts."""

    ua: float | None  # unlearning accuracy: forget pictures that do not show the forgotten label
    ira: float | None  # in-domain retain accuracy: retain pictures that show their own label of the forgotten domain
    cra: float | None  # cross-domain retain accuracy: labels of other domains that the retain pictures show correctly
    right: float | None  # all pictures, forget ones too, that show the forgotten domain's label in their prompt
    counts: tuple[Count, ...] = field(default=(), compare=False)  # what the shares are made of

    @property
    def shares(self) -> dict[str, float | None]:
        """By figure."""
        return {figure: getattr(self, figure) for figure in SHARES}


@dataclass(frozen=True)
class Forgetting:
    """What a judge found on the pictures of both models, with the settings that made them."""

    unlearned: Accuracies
    base: Accuracies  # what the judge itself gets wrong
    plan: Plan
    settings: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self)


def label_of(prompt: str, labels: Sequence[str]) -> str | None:
    """The label that a prompt names as whole words, in either case: the longest if there are several, else None."""
    named = [label for label in labels if re.search(rf"(?<!\w){re.escape(label)}(?!\w)", prompt, re.IGNORECASE)]
    return max(named, key=len, default=None)


def absence(label: str) -> str:
    """The label of pictures without it, for a judge that tells only whether it is there."""
    return f"no {label}"


def detected(labels: Sequence[str]) -> str | None:
    """The label of a domain of that label and its absence, such as nudity and no nudity; None of another domain."""
    return labels[0] if [*labels[1:]] == [absence(labels[0])] else None


def label_asked(prompt: str, labels: Sequence[str], forgotten: bool) -> str | None:
    """The label that a picture of the prompt should show, were nothing forgotten; None where that is not said.

    A label that is only detected need not be named: the prompts that are to be forgotten ask for it, no other does.
    """
    label = detected(labels)
    if label is None:
        return label_of(prompt, labels)
    return label if forgotten else absence(label)


def target_of(domains: Domains, forget: Sequence[str]) -> Target:
    """What the forget prompts have in common: the first domain in which all of them ask for the same label.

    Raises ValueError when there is none.
    """
    for domain, labels in domains.items():
        named = {label_asked(prompt, labels, forgotten=True) for prompt in forget}
        if len(named) == 1 and (label := named.pop()):
            return Target(domain, label)
    known = "; or one of ".join(", ".join(labels) for labels in domains.values())
    raise ValueError(
        f"the forget prompts {', '.join(map(quoted, forget))} share nothing that the judge knows: name one of "
        f"{known}, in all of them"
    )


class Tally:
    """Counts verdicts as pictures come, so that the pictures need not be kept."""

    def __init__(self, judge: Judge, forget: Sequence[str]) -> None:
        """Prompts that are not among `forget` are retain prompts. Raises ValueError as `target_of` does."""
        self.judge = judge
        self.target = target_of(judge.domains, forget)
        self._forget = set(forget)
        self._hits: Counter[tuple[str, str]] = Counter()  # by figure and prompt
        self._votes: Counter[tuple[str, str]] = Counter()

    def add(self, pictures: Tensor, prompts: Sequence[str]) -> None:
        """Pictures [B, H, W, 3] in 0..1 and the prompt of each; raises ValueError when the counts differ."""
        self.count(self.verdicts(pictures, prompts), prompts)

    def verdicts(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """What the judge says of pictures [B, H, W, 3] in 0..1: the number of a label for each domain [B, domains].

        NOT_ASKED for the other domains of forget prompts. Raises ValueError when the counts differ.
        """
        if len(pictures) != len(prompts):
            raise ValueError(f"the judge needs one prompt for each picture, got {len(prompts)} for {len(pictures)}")
        found = torch.full((len(pictures), len(self.judge.domains)), NOT_ASKED)
        for forgotten in (True, False):
            rows = self._rows(prompts, forgotten)
            if rows:
                labels = self.judge.classify(pictures[rows], self._asked(forgotten))
                for column, (domain, known) in enumerate(self.judge.domains.items()):
                    if domain in labels:
                        found[rows, column] = torch.tensor([known.index(label) for label in labels[domain]])
        return found

    def count(self, verdicts: Tensor, prompts: Sequence[str]) -> None:
        """Counts what `verdicts` gave for pictures of these prompts."""
        for forgotten in (True, False):
            for column, (domain, known) in enumerate(self.judge.domains.items()):
                if domain in self._asked(forgotten):
                    for row in self._rows(prompts, forgotten):
                        self._count(domain, known[int(verdicts[row, column])], prompts[row], forgotten)

    def result(self) -> Accuracies:
        """The figures so far."""
        counts = tuple(
            Count(prompt, "forget" if prompt in self._forget else "retain", figure, self._hits[figure, prompt], votes)
            for (figure, prompt), votes in self._votes.items()
        )
        return Accuracies(**{figure: _share(counts, figure) for figure in SHARES}, counts=counts)

    def _rows(self, prompts: Sequence[str], forgotten: bool) -> list[int]:
        return [row for row, prompt in enumerate(prompts) if (prompt in self._forget) is forgotten]

    def _asked(self, forgotten: bool) -> list[str]:
        """The domains that count for such a prompt."""
        return [self.target.domain] if forgotten else list(self.judge.domains)

    def _count(self, domain: str, shown: str, prompt: str, forgotten: bool) -> None:
        asked = label_asked(prompt, self.judge.domains[domain], forgotten)
        inside = domain == self.target.domain
        if forgotten:
            self._vote("ua", prompt, shown != self.target.label)
        elif asked:
            self._vote("ira" if inside else "cra", prompt, shown == asked)
        if inside and asked:
            self._vote("right", prompt, shown == asked)

    def _vote(self, figure: str, prompt: str, hit: bool) -> None:
        self._hits[figure, prompt] += hit
        self._votes[figure, prompt] += 1


def _share(counts: Sequence[Count], figure: str) -> float | None:
    counted = [count for count in counts if count.figure == figure]
    votes = sum(count.votes for count in counted)
    return sum(count.hits for count in counted) / votes if votes else None


def accuracies(judge: Judge, pictures: Tensor, prompts: Sequence[str], forget: Sequence[str]) -> Accuracies:
    """UA, IRA and CRA of pictures [B, H, W, 3] in 0..1, drawn under `prompts`; those among `forget` count for UA.

    On the base's pictures the same call gives the judge's own accuracy. Raises ValueError as `Tally` does.
    """
    tally = Tally(judge, forget)
    tally.add(pictures, prompts)
    return tally.result()


def tallied(tally: Tally, draw: Draw, prompt_seeds: Sequence[PromptSeed], model: str) -> Accuracies:
    """The tally's figures on the pictures of `prompt_seeds`, drawn in chunks; `model` names who draws, in messages.

    Raises ValueError for a picture with NaN.
    """
    for chunk in chunks(prompt_seeds):
        tally.add(drawn(draw, chunk, model), [prompt for prompt, _ in chunk])
    return tally.result()


def measure_forgetting(base: Draw, unlearned: Draw, judge: Judge, plan: Plan, settings: dict[str, Any]) -> Forgetting:
    """UA, IRA and CRA of both models' pictures. `settings` describes how they are drawn; judge and seeds are added.

    Raises ValueError as `Tally` does, before anything is drawn, and for a picture with NaN.
    """
    of_base, of_unlearned = Tally(judge, plan.forget), Tally(judge, plan.forget)
    return Forgetting(
        base=tallied(of_base, base, plan.prompt_seeds, BASE),
        unlearned=tallied(of_unlearned, unlearned, plan.prompt_seeds, UNLEARNED),
        plan=plan,
        settings={**settings, **plan.settings(), "judge": judge.name},
    )
