"""Other wordings of forget prompts, which the model itself is asked about.

Forgetting a prompt need not reach the same thing under another wording. Candidates are made by rules, and from the text
encoder's own words; those stay that move the base's prediction as the forget prompt does.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest

import torch
import torch.nn.functional as F
from torch import Tensor

from .bank import BankItem, sample_trajectories
from .model import Cond, DiffusionModel, noise_prediction
from .prompts import SMALL_WORDS, Prompts, held_prompts
from .sampling import Sampling

FRAMES = ("a photo of", "a picture of", "a drawing of", "a painting of")
BEFORE = re.compile(r"^(.*\bof)\s")  # how a prompt begins before its subject
BEHIND = re.compile(r"\s((?:in|by|on|at|with|under|near)\s.*)$")  # and goes on behind it
NEAR = 48  # of the encoder's words are asked about for each word
KINDS = 8  # candidates of one kind for a prompt, beside names
RUNS, STEPS = 4, 8  # of the base, for latents at which it is asked
LOOKED_AT = slice(1, 6)  # steps of a run at which prompts show what they are
AT_ONCE = 16  # predictions


def other_wordings(
    model: DiffusionModel,
    prompts: Prompts,
    sampling: Sampling,
    most: int,
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, list[str]]:
    """At most `most` other wordings of each forget prompt, the kinds of them in turn, each kind's nearest first.

    A wording c' is kept when e0(c') - e0("") is nearer to the forget prompt's direction e0(c) - e0(""), by the mean
    cosine over some latents, than that of every prompt that is held, and nearer to it than to any of these. `sampling`
    has guidance scale and size; on_step is called once for a forget prompt.
    """
    held = [prompt for prompt in held_prompts(prompts) if prompt]
    found: dict[str, list[str]] = {}
    for forget in prompts.forget:
        judge = _Judge(model, forget, held, sampling)
        kinds = candidates(forget, held, model.vocabulary().nearest)
        taken = {*prompts.forget, *held}
        kept = [judge.kept([text for text in kind if text not in taken]) for kind in kinds]
        in_turn = [text for row in zip_longest(*kept) for text in row if text is not None]
        found[forget] = list(dict.fromkeys(in_turn))[:most]
        on_step()
    return found


class _Judge:
    """Says which wordings move the base's prediction as one forget prompt does."""

    def __init__(self, model: DiffusionModel, forget: str, held: Sequence[str], sampling: Sampling) -> None:
        self._model = model
        items = [BankItem(forget, forget, forget, seed) for seed in range(RUNS)]
        short = Sampling(STEPS, sampling.cfg, sampling.width, sampling.height)
        looked = sample_trajectories(model, items, short, reads=("e_cond", "e_uncond"))
        self._x = looked.x[:, LOOKED_AT].flatten(0, 1)
        self._sigma = looked.sigma[LOOKED_AT].repeat(RUNS)
        self._uncond = looked.e_uncond[:, LOOKED_AT].flatten(0, 1)
        self._forget = (looked.e_cond - looked.e_uncond)[:, LOOKED_AT].flatten(0, 1).flatten(1)
        self._held = [self._direction(prompt) for prompt in held]
        self._nearest_held = max((self._likeness(held, self._forget) for held in self._held), default=0.0)

    def kept(self, texts: Sequence[str]) -> list[str]:
        """Those that mean the forget prompt, the most alike first."""
        likeness: dict[str, float] = {}
        for text in texts:
            direction = self._direction(text)
            own = self._likeness(direction, self._forget)
            others = max((self._likeness(direction, held) for held in self._held), default=0.0)
            if own > max(others, self._nearest_held):
                likeness[text] = own
        return sorted(likeness, key=lambda text: -likeness[text])

    @torch.no_grad()
    def _direction(self, prompt: str) -> Tensor:
        """e0(c) - e0("") at all latents, [N, numbers]."""
        [cond] = self._model.encode([prompt])
        parts = zip(self._x.split(AT_ONCE), self._sigma.split(AT_ONCE), strict=True)
        e = torch.cat([self._predicted(x, sigma, cond) for x, sigma in parts])
        return (e - self._uncond).flatten(1)

    def _predicted(self, x: Tensor, sigma: Tensor, cond: Cond) -> Tensor:
        return noise_prediction(self._model, x.to(self._model.device), sigma, [cond] * len(x)).cpu()

    @staticmethod
    def _likeness(one: Tensor, other: Tensor) -> float:
        return float(F.cosine_similarity(one, other, dim=1).mean())


def candidates(forget: str, held: Sequence[str], nearest: Callable[[str, int], list[str]]) -> list[list[str]]:
    """Texts that may mean the forget prompt, kind by kind: other names, frames, other orders, fewer words.

    None is made of the words of a held prompt alone. `nearest` gives so many words near one.
    """
    own = forget.split()
    held_words = [set(prompt.lower().split()) for prompt in held]
    mixed = random.Random(forget)
    kinds = [names(own, held_words, nearest), framed(forget, held), reordered(own, mixed), shortened(own)]
    return [[text for text in kind if not _said_by(text, held_words)] for kind in kinds]


def names(own: Sequence[str], held: Sequence[set[str]], nearest: Callable[[str, int], list[str]]) -> list[str]:
    """The prompt with the words that no held prompt has, alone or with a neighbour, as one word of the encoder's."""
    known = set[str]().union(*held, SMALL_WORDS)
    places = [place for place, word in enumerate(own) if word.lower() not in known]
    if not places:
        return []
    first, last = places[0], places[-1] + 1
    spans = [(first, last), (first, last + 1), (first - 1, last)]
    spans = [(start, end) for start, end in spans if start >= 0 and end <= len(own) and _is_named(own[start:end])]
    near = dict.fromkeys(chain.from_iterable(nearest(own[place], NEAR) for place in places))
    return [" ".join([*own[:start], word, *own[end:]]) for word in near for start, end in spans]


def framed(forget: str, held: Sequence[str]) -> list[str]:
    """The subject within beginnings and ends of usual prompts and of those that are held."""
    before, behind = BEFORE.search(forget), BEHIND.search(forget)
    subject = forget[before.end() if before else 0 : behind.start() if behind else None]
    begins = dict.fromkeys(["", *FRAMES, *_parts(BEFORE, held)])
    ends = dict.fromkeys([behind.group(1) if behind else "", "", *_parts(BEHIND, held)])
    texts = [" ".join(filter(None, [begin, subject, end])) for end in ends for begin in begins]
    return [text for text in texts if text != forget][: 2 * KINDS]


def reordered(own: Sequence[str], mixed: random.Random) -> list[str]:
    """The words twice, backwards, and mixed."""
    orders = [[*own, *own], own[::-1], *(mixed.sample(own, len(own)) for _ in range(KINDS - 2))]
    return [" ".join(order) for order in orders]


def shortened(own: Sequence[str]) -> list[str]:
    """Without one of the words, and without the small ones."""
    fewer = [[*own[:place], *own[place + 1 :]] for place in range(len(own))]
    plain = [word for word in own if word.lower() not in SMALL_WORDS]
    return [" ".join(words) for words in [plain, *fewer] if words][: 2 * KINDS]


def _parts(pattern: re.Pattern[str], prompts: Iterable[str]) -> list[str]:
    """What a pattern finds in prompts, the most frequent first."""
    found = Counter(match.group(1) for prompt in prompts if (match := pattern.search(prompt)))
    return [text for text, _ in found.most_common(KINDS)]


def _is_named(words: Sequence[str]) -> bool:
    """Whether neither end is a small word."""
    return not {words[0].lower(), words[-1].lower()} & set(SMALL_WORDS)


def _said_by(text: str, held: Sequence[set[str]]) -> bool:
    """Whether a held prompt has all the words, but for small ones."""
    words = set(text.lower().split()) - set(SMALL_WORDS)
    return any(words <= other for other in held)
