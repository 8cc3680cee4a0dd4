"""Other wordings of forget prompts, which the model itself is asked about.

Forgetting a prompt need not reach the same thing under another wording. Candidates are made by rules, and from the text
encoder's own words; those stay that move the base's prediction as the forget prompt does.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, cycle, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor

from .bank import items_at_once, sample_trajectories
from .encodings import readable
from .latents import BankItem
from .model import Cond, DiffusionModel, noise_prediction
from .prompts import SMALL_WORDS, Prompts, held_prompts
from .sampling import Sampling

FRAMES = {name: f"a {name} of" for name in ("photo", "picture", "drawing", "painting")}
BEFORE = re.compile(r"^(.*\bof)\s")  # how a prompt begins before its subject
BEHIND = re.compile(r"\s((?:in|by|on|at|with|under|near)\s.*)$")  # and goes on behind it
NEAR = 24  # of the encoder's words are asked about for each word
KINDS = 8  # candidates of one kind for a prompt, beside names
SEARCHES = 4  # kinds of candidates
RUNS, STEPS = 4, 8  # of the base, for latents at which it is asked
APART = 0.25
LOOKED_AT = slice(2, 6, 2)  # steps of a run at which prompts show what they are

Nearest = Callable[[str, int], list[str]]


def other_wordings(
    model: DiffusionModel,
    prompts: Prompts,
    sampling: Sampling,
    most: int,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, list[str]]:
    """At most `most` other wordings of each forget prompt, the kinds of them in turn, each kind's nearest first.

    What a prompt does is its direction e0(c) - e0(""), and two prompts are as far apart as 1 minus the mean cosine of
    their directions over some latents. A wording is kept when it is nearer to the forget prompt than to every prompt
    that is held, and has not more than APART of the way from the forget prompt to the nearest of these. `sampling` has
    guidance scale and size; on_step is called `steps_of(prompts)` times.
    """
    held = [prompt for prompt in held_prompts(prompts) if prompt]
    judge = _Judge(model, prompts.forget, held, sampling)
    on_step()
    finder = _Finder(held, model.vocabulary().nearest, judge)
    taken = {*prompts.forget, *held}
    found: dict[str, list[str]] = {}
    for forget in prompts.forget:
        kinds = []
        for kind in finder.wordings(forget):
            kinds.append([text for text in kind if text not in taken])
            on_step()
        in_turn = [text for row in zip_longest(*kinds) for text in row if text is not None]
        found[forget] = list(dict.fromkeys(in_turn))[:most]
    return found


def steps_of(prompts: Prompts) -> int:
    """Of `other_wordings`: looking at the base, and a search for each kind of wording of each forget prompt."""
    return 1 + SEARCHES * len(prompts.forget)


class _Judge:
    """Says which wordings move the base's prediction as a forget prompt does."""

    def __init__(self, model: DiffusionModel, forget: Sequence[str], held: Sequence[str], sampling: Sampling) -> None:
        self._model = model
        self._at_once = items_at_once(sampling.width, sampling.height)
        items = [BankItem(prompt, prompt, prompt, seed) for seed, prompt in zip(range(RUNS), cycle(forget))]
        short = Sampling(STEPS, sampling.cfg, sampling.width, sampling.height)
        looked = sample_trajectories(model, items, short, reads=("e_uncond",))
        self._x, self._uncond = (part[:, LOOKED_AT].flatten(0, 1) for part in (looked.x, looked.e_uncond))
        self._sigma = looked.sigma[LOOKED_AT].repeat(RUNS)
        self._held = self._directions([cond for prompt in held for cond in model.encode([prompt])])
        self._forget: dict[str, Tensor] = {}  # as they are asked for

    def kept(self, forget: str, texts: Sequence[str]) -> list[str]:
        """Those that mean the forget prompt and can be read whole, the most alike first."""
        if forget not in self._forget:
            [self._forget[forget]] = self._directions(self._model.encode([forget]))
        own = self._forget[forget]
        nearest_held = max((_likeness(held, own) for held in self._held), default=0.0)
        least = 1 - APART * (1 - nearest_held)
        alike: dict[str, float] = {}
        conds = {text: self._model.encode([text])[0] for text in texts if readable(self._model, [text])}
        for text, direction in self._near(own, least, conds):
            likeness = _likeness(direction, own)
            if all(likeness > _likeness(direction, held) for held in self._held):
                alike[text] = likeness
        return sorted(alike, key=lambda text: -alike[text])

    def _near(self, own: Tensor, least: float, conds: Mapping[str, Cond]) -> Iterable[tuple[str, Tensor]]:
        """The texts with a likeness above `least`, and their directions.

        A text is asked about at one latent after the other, and no more once the rest could not lift it so far.
        """
        seen = {text: own[:0] for text in conds}
        for place in range(len(own)):
            more = self._directions([conds[text] for text in seen], slice(place, place + 1))
            seen = {text: torch.cat([before, new]) for (text, before), new in zip(seen.items(), more, strict=True)}
            needed = least * len(own) - (len(own) - place - 1)  # of the cosines so far, were all others 1
            seen = {text: found for text, found in seen.items() if _cosines(found, own[: place + 1]).sum() > needed}
        return seen.items()

    @torch.no_grad()
    def _directions(self, prompts: Sequence[Cond], where: slice = slice(None)) -> list[Tensor]:
        """e0(c) - e0("") of each encoded prompt at these latents, [N, numbers]."""
        x, sigma, uncond = self._x[where], self._sigma[where], self._uncond[where]
        conds = [cond for cond in prompts for _ in x]
        directions: list[Tensor] = []
        for start in range(0, len(conds), self._at_once):
            part = conds[start : start + self._at_once]
            rows = [(start + index) % len(x) for index in range(len(part))]
            e = noise_prediction(self._model, x[rows].to(self._model.device), sigma[rows], part)
            directions += (e.cpu() - uncond[rows]).flatten(1)
        return [torch.stack(directions[start : start + len(x)]) for start in range(0, len(directions), len(x))]


def _likeness(one: Tensor, other: Tensor) -> float:
    return float(_cosines(one, other).mean())


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    return F.cosine_similarity(one, other, dim=1)


class _Finder:
    """Candidates, of which the judge has kept those that mean a forget prompt."""

    def __init__(self, held: Sequence[str], nearest: Nearest, judge: _Judge) -> None:
        self._held = held
        self._held_words = [set(prompt.lower().split()) for prompt in held]
        self._nearest = nearest
        self._judge = judge
        self._names: dict[str, list[str]] = {}  # of what some words name

    def wordings(self, forget: str) -> Iterator[list[str]]:
        """Other names, frames, other orders, fewer words; none of a held prompt's words alone."""
        own, mixed = forget.split(), random.Random(forget)
        yield self._named(forget)
        for kind in (framed(forget, self._held), reordered(own, mixed), shortened(own)):
            yield self._judge.kept(forget, self._new(kind))

    def _named(self, forget: str) -> list[str]:
        """The prompt with other names for what it alone names; what these words name is looked up once."""
        own = forget.split()
        texts: list[str] = []
        for start, end in named_spans(own, self._held_words):
            span = " ".join(own[start:end])
            put = {word: " ".join([*own[:start], word, *own[end:]]) for word in self._near(own[start:end])}
            if span not in self._names:
                kept = set(self._judge.kept(forget, self._new(put.values())))
                self._names[span] = [word for word, text in put.items() if text in kept]
            texts += [put[word] for word in self._names[span]]
        return texts

    def _near(self, span: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(chain.from_iterable(self._nearest(word, NEAR) for word in span)))

    def _new(self, texts: Iterable[str]) -> list[str]:
        return [text for text in dict.fromkeys(texts) if not _said_by(text, self._held_words)]


def named_spans(own: Sequence[str], held: Sequence[set[str]]) -> list[tuple[int, int]]:
    """Where the words are that no held prompt has, alone and with a neighbour."""
    known = set[str]().union(*held, SMALL_WORDS)
    places = [place for place, word in enumerate(own) if word.lower() not in known]
    if not places:
        return []
    first, last = places[0], places[-1] + 1
    spans = [(first, last), (first, last + 1), (first - 1, last)]
    inside = [(start, end) for start, end in spans if start >= 0 and end <= len(own)]
    return [span for span in inside if not {own[span[0]].lower(), own[span[1] - 1].lower()} & set(SMALL_WORDS)]


def framed(forget: str, held: Sequence[str]) -> list[str]:
    """The subject within beginnings and ends of usual prompts and of those that are held."""
    before, behind = BEFORE.search(forget), BEHIND.search(forget)
    subject = forget[before.end() if before else 0 : behind.start() if behind else None]
    begins = dict.fromkeys(["", *FRAMES.values(), *_parts(BEFORE, held)])
    ends = dict.fromkeys([behind.group(1) if behind else "", "", *_parts(BEHIND, held)])
    texts = [" ".join(filter(None, [begin, subject, end])) for end in ends for begin in begins]
    return [text for text in texts if text != forget][: 2 * KINDS]


def other_endings(prompts: Prompts, most: int) -> list[str]:
    """The subjects of held prompts with the usual endings of them all, such as `in watercolour`, and with none: at most
    `most` new ones for each prompt, the most frequent endings first; none that says a forget prompt.
    """
    held = held_prompts(prompts)
    ends = ["", *_parts(BEHIND, held)]
    found: list[str] = []
    for prompt in held:
        subject = BEHIND.sub("", prompt)
        texts = [f"{subject} {end}".strip() for end in ends if subject]
        told = [
            text for text in texts if not any(_said_by(forget, [{*text.lower().split()}]) for forget in prompts.forget)
        ]
        found += [text for text in told if text not in held][:most]
    return list(dict.fromkeys(found))


def reordered(own: Sequence[str], mixed: random.Random) -> list[str]:
    """The words twice, backwards, and mixed."""
    orders = [[*own, *own], backwards(own), *(mixed.sample(own, len(own)) for _ in range(KINDS - 2))]
    return [" ".join(order) for order in orders]


def shortened(own: Sequence[str]) -> list[str]:
    """Without one of the words, and without the small ones."""
    fewer = [[*own[:place], *own[place + 1 :]] for place in range(len(own))]
    return [" ".join(words) for words in [bare(own), *fewer] if words][: 2 * KINDS]


def backwards(own: Sequence[str]) -> list[str]:
    """The words in reverse."""
    return [*own[::-1]]


def bare(own: Sequence[str]) -> list[str]:
    """The words without the small ones."""
    return [word for word in own if word.lower() not in SMALL_WORDS]


def _parts(pattern: re.Pattern[str], prompts: Iterable[str]) -> list[str]:
    """What a pattern finds in prompts, the most frequent first."""
    found = Counter(match.group(1) for prompt in prompts if (match := pattern.search(prompt)))
    return [text for text, _ in found.most_common(KINDS)]


def _said_by(text: str, held: Sequence[set[str]]) -> bool:
    """Whether a held prompt has all the words, but for small ones."""
    words = set(text.lower().split()) - set(SMALL_WORDS)
    return any(words <= other for other in held)
