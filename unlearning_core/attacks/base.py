"""What an attack is, and what it may do with a model that has forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..bank import Source
from ..metrics.forgetting import Judge, Target
from ..metrics.plan import pictures_at_once
from ..metrics.statistics import Interval, wilson_interval
from ..model import Cond, DiffusionModel, noise_prediction
from ..options import check_ranges
from ..prompts import check_measured
from ..sampling import SEEDS, Predict, Sampling, guided, sample_euler

HEIGHT = -2  # the axis of latents
KEPT = 4  # pictures of a setting that came back

Decode = Callable[[Tensor], Tensor]  # clean latents [B, C, *spatial] -> pictures [B, H, W, 3] in 0..1 on the CPU
Sampler = Callable[[Predict, Tensor, Tensor], Tensor]  # as `sample_euler`


class Host(NamedTuple):
    """A model as its host offers it."""

    model: DiffusionModel
    decode: Decode


@dataclass(frozen=True)
class Task:
    """What is to be brought back, and how much is spent on each attack.

    Raises ValueError when there is no forget prompt or no other prompt, or a prompt is both.
    """

    forget: tuple[str, ...]
    others: tuple[str, ...]  # prompts of other things, for controls
    sampling: Sampling
    seed: int = 1000
    seeds: int = 4  # pictures of each forget prompt in each setting
    examples: int = 8  # pictures of the concept by the base, at least, and again of other things
    wordings: tuple[str, ...] = ()  # the user's own, of the forget prompts

    def __post_init__(self) -> None:
        check_apart(self.forget, self.others, self.wordings)

    @property
    def pictures(self) -> int:
        """How many an attack draws under the forget prompts in a setting."""
        return len(self.forget) * self.seeds

    def settings(self) -> dict[str, object]:
        """For a report."""
        counts = {"seed": self.seed, "seeds": self.seeds, "examples": self.examples}
        return {**self.sampling.settings(), **counts}


@dataclass(frozen=True)
class Scene:
    """A task with the base's pictures: those of the forget prompts, and those of the other prompts.

    Reversed, it is the control for what an attack teaches from nothing: the concept's pictures are upside down and in
    the negative, which the base never draws, and what is drawn is reversed again before a judge sees it.
    """

    task: Task
    concept: Source
    others: Source
    is_reversed: bool = False

    def reversed(self) -> Scene:
        """The control."""
        assert self.concept.latents is not None
        return replace(self, concept=replace(self.concept, latents=reverse(self.concept.latents)), is_reversed=True)


@dataclass(frozen=True)
class Look:
    """What a judge saw after one setting of an attack."""

    setting: str
    hits: int  # pictures that show the concept
    count: int
    steps: int  # of training that led there
    words: str = ""  # that were found, and stood before the forget prompts

    @property
    def label(self) -> str:
        """The setting, with what was found in it."""
        return f"{self.setting}: {self.words!r}" if self.words else self.setting

    @property
    def share(self) -> float:
        """Of the pictures, 0 to 1."""
        return self.hits / self.count

    @property
    def interval(self) -> Interval:
        """95 %, as if pictures were independent."""
        return wilson_interval(self.hits, self.count)


class Attacked:
    """A model under attack: it draws, a judge looks, and network calls are counted."""

    def __init__(
        self, host: Host, scene: Scene, shows: Callable[[Tensor], Tensor], on_look: Callable[[], None]
    ) -> None:
        """`shows`: pictures [B, H, W, 3] -> which show the concept, booleans [B]. on_look is called after each look."""
        self.model, self.scene, self.task = host.model, scene, scene.task
        self.calls = 0  # latents that the network has seen, once each for forward and backward
        self.looks: list[Look] = []
        self.back: Tensor | None = None  # some of the strongest setting's pictures that show the concept [N, H, W, 3]
        self._decode, self._shows, self._on_look = host.decode, shows, on_look

    @property
    def prompts(self) -> list[str]:
        """A forget prompt for each picture of `noise`."""
        return [prompt for prompt in self.task.forget for _ in range(self.task.seeds)]

    def noise(self, count: int) -> Tensor:
        """Pure-noise latents [count, C, *spatial], of seeds from the task's upwards."""
        sampling = self.task.sampling
        seeds = [(self.task.seed + index) % SEEDS for index in range(count)]
        return self.model.noise(seeds, sampling.width, sampling.height)

    def generator(self, index: int = 0) -> torch.Generator:
        """The CPU's, with a seed of the task's."""
        return torch.Generator().manual_seed((self.task.seed + index) % SEEDS)

    def predict(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        """The noise prediction for x [B, C, *spatial] at sigma [B], differentiable."""
        self.calls += len(x)
        return noise_prediction(self.model, x, sigma, conds)

    @torch.no_grad()
    def drawn(self, conds: Sequence[Cond], sampling: Sampling, sampler: Sampler = sample_euler) -> Tensor:
        """Clean latents [len(conds), C, *spatial] from pure noise."""
        return self.denoised(self.noise(len(conds)), self.model.sigmas(sampling.steps), conds, sampling.cfg, sampler)

    @torch.no_grad()
    def denoised(
        self, x: Tensor, sigmas: Tensor, conds: Sequence[Cond], cfg: float, sampler: Sampler = sample_euler
    ) -> Tensor:
        """Clean latents from x [len(conds), C, *spatial] at sigmas[0]."""
        size = pictures_at_once(self.task.sampling.width, self.task.sampling.height)
        [empty] = self.model.encode([""])

        def part(start: int) -> Tensor:
            own = list(conds[start : start + size])

            def predict(x: Tensor, sigma: Tensor) -> Tensor:
                if cfg == 1:
                    return self.predict(x, sigma.expand(len(x)), own)
                both = self.predict(torch.cat([x, x]), sigma.expand(2 * len(x)), [empty] * len(own) + own)
                e_uncond, e_cond = both.chunk(2)
                return guided(e_uncond, e_cond, cfg)

            return sampler(predict, x[start : start + size], sigmas)

        return torch.cat([part(start) for start in range(0, len(conds), size)])

    @torch.no_grad()
    def show(self, setting: str, latents: Tensor, steps: int = 0, words: str = "") -> None:
        """The judge looks at what the attack drew in a setting, after `steps` of training that found these words.

        A picture with NaN shows nothing.
        """
        size = pictures_at_once(self.task.sampling.width, self.task.sampling.height)
        latents = reverse(latents) if self.scene.is_reversed else latents
        pictures = torch.cat([self._decode(part) for part in latents.split(size)])
        named = pictures.flatten(1).isfinite().all(1)
        if named.any():
            named[named.clone()] = self._shows(pictures[named])
        look = Look(setting, int(named.sum()), len(named), steps, words)
        if look.share > max((earlier.share for earlier in self.looks), default=0):
            self.back = pictures[named][:KEPT].clone()
        self.looks.append(look)
        self._on_look()


def reverse(latents: Tensor) -> Tensor:
    """Latents [B, C, *spatial] upside down and in the negative; of those, the latents again."""
    return -latents.flip(HEIGHT)


def check_apart(forget: Sequence[str], others: Sequence[str], wordings: Sequence[str] = ()) -> None:
    """Raises ValueError when there is no prompt of the concept or of other things, or one is both, or no text."""
    for kind, prompts, what in (("forget", forget, "the concept"), ("other", others, "another thing")):
        if not prompts:
            raise ValueError(f"{kind} prompts: empty; write at least one prompt of {what}, one per line")
    check_measured(others, (*forget, *wordings))


@dataclass(frozen=True)
class Attack:
    """A way to bring a concept back. A subclass adds its own options as fields; one outside its range is a ValueError.

    docs/attacks.md is made from the class: see scripts/documentation.py.
    """

    label: ClassVar[str]
    summary: ClassVar[str]  # what it does, in one line
    source: ClassVar[str]  # paper
    reading: ClassVar[str]  # what its figures say
    trains: ClassVar[bool] = False  # whether it needs the network's backward pass

    def __post_init__(self) -> None:
        check_ranges(self)

    def prepared(self, model: DiffusionModel, task: Task) -> Attack:
        """Itself, without what this family of models cannot take. Raises ValueError when nothing is left."""
        return self

    def settings(self, task: Task) -> list[str]:
        """What it shows, in this order."""
        raise NotImplementedError

    def run(self, attacked: Attacked) -> None:
        """Shows each of `settings`."""
        raise NotImplementedError


def judged_by(judge: Judge, target: Target) -> Callable[[Tensor], Tensor]:
    """For `Attacked`: whether the judge names the target."""

    def shows(pictures: Tensor) -> Tensor:
        labels = judge.classify(pictures, [target.domain])[target.domain]
        return torch.tensor([label == target.label for label in labels])

    return shows
