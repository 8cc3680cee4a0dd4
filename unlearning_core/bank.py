"""Where training latents come from, with every prediction of the frozen base that an objective compares with.

They come from the base's own sampling trajectories, or from pictures (the base's or the user's) at random noise.
Guided sampling needs the base's predictions at each step anyway. They are kept, so that the training loop calls the
trained network only; ESD's reference code restarts a sampling run for every training step instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .model import Cond, DiffusionModel, check_prediction, noise_prediction
from .prompts import Prompts, held_prompts
from .sampling import BATCH, SEEDS, Sampling, batch_size, guided, sample_euler
from .settings import BankSettings, Needs

T = TypeVar("T")

PIXELS = BATCH * 512**2  # of the items that are sampled together, at most
DOWNSCALE = 8  # pixels to a latent's pixel along each side, near enough to tell how large a picture is


@dataclass(frozen=True)
class BankItem:
    """One sampling run of the base, or one picture.

    `prompt` is what the trained model will see at the item's latents, `overwrite` what it is to draw instead (a retain
    prompt is its own), `guide` the one of the two that the run follows.
    """

    prompt: str
    overwrite: str
    guide: str
    seed: int


@dataclass(frozen=True)
class Batch:
    """Latents [B, C, *spatial] at sigma [B] on the way to pictures x0, and the frozen base's noise predictions there.

    x, x0 and the predictions have one shape and are on the model's device.
    """

    x: Tensor
    x0: Tensor
    sigma: Tensor
    conds: list[Cond]
    overwrites: list[Cond]
    e_cond: Tensor  # under the item's prompt
    e_uncond: Tensor  # under the empty prompt
    e_overwrite: Tensor  # under the item's overwrite prompt

    def __len__(self) -> int:
        return len(self.conds)

    @property
    def noise(self) -> Tensor:
        """The noise prediction that leads to x0, of x's shape: the target of the denoising loss."""
        return (self.x - self.x0) / self.sigma.view(-1, *[1] * (self.x.ndim - 1))

    def join(self, other: Batch) -> Batch:
        """This batch followed by `other`."""
        return Batch(*(_joined(getattr(self, spec.name), getattr(other, spec.name)) for spec in fields(Batch)))


@dataclass(frozen=True)
class LatentSet:
    """N items: latents and noise predictions [N, steps, C, *spatial] at sigma [steps], pictures x0 [N, C, *spatial].

    sigma is on the model's device, where `sample` moves its latents; the others are large and stay on the CPU.
    """

    items: list[BankItem]
    x: Tensor
    x0: Tensor
    sigma: Tensor
    conds: list[Cond]
    overwrites: list[Cond]
    e_cond: Tensor
    e_uncond: Tensor
    e_overwrite: Tensor

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """`count` latents at random items and steps, drawn from the CPU's `generator`."""
        item = torch.randint(len(self.conds), (count,), generator=generator)
        step = torch.randint(len(self.sigma), (count,), generator=generator)
        device = self.sigma.device
        stacks = (self.x, self.e_cond, self.e_uncond, self.e_overwrite)
        x, e_cond, e_uncond, e_overwrite = (stack[item, step].to(device) for stack in stacks)
        x0, sigma = self.x0[item].to(device), self.sigma[step.to(device)]
        conds, overwrites = ([stack[index] for index in item.tolist()] for stack in (self.conds, self.overwrites))
        return Batch(x, x0, sigma, conds, overwrites, e_cond, e_uncond, e_overwrite)


@dataclass(frozen=True)
class Bank:
    """What a run trains on."""

    forget: LatentSet
    retain: LatentSet | None  # None when nothing is to be held


@dataclass(frozen=True)
class UserLatents:
    """Clean latents [N, C, *spatial] in the model's own scale, to train on in place of the base's own pictures.

    As many as there are prompts, or any number for a single prompt.
    """

    forget: Tensor | None = None
    retain: Tensor | None = None

    def check(self, like: Tensor) -> None:
        """Raises ValueError for latents that the model of `like` [1, C, *spatial] cannot take, or that are no numbers.

        Their size may be any, within the number of dimensions.
        """
        for kind, latents in (("forget", self.forget), ("retain", self.retain)):
            if latents is None:
                continue
            if latents.ndim != like.ndim or latents.shape[1] != like.shape[1] or not latents.numel():
                raise ValueError(
                    f"{kind} latents: their shape is {[*latents.shape]}, and this model's have {like.shape[1]} "
                    f"channels in {like.ndim} dimensions; encode the pictures with the VAE that belongs to the model"
                )
            if not latents.isfinite().all():
                raise ValueError(f"{kind} latents: there are NaN or infinite values in them; encode the pictures again")


NO_LATENTS = UserLatents()


@dataclass(frozen=True)
class Source:
    """Where one half of the bank comes from."""

    items: list[BankItem]
    latents: Tensor | None  # the user's; else the base draws them
    noised: bool  # at random noise, in place of the way to them

    def calls(self, sampling: Sampling) -> int:
        """How many steps `latent_set` reports."""
        passes = (self.latents is None) + (self.noised or self.latents is not None)
        return passes * len(_parts(self.items, self.at_once(sampling))) * sampling.steps

    def at_once(self, sampling: Sampling) -> int:
        """How many items are sampled together."""
        if self.latents is None:
            return items_at_once(sampling.width, sampling.height)
        return items_at_once(*(DOWNSCALE * side for side in self.latents.shape[-2:]))

    def latent_set(self, model: DiffusionModel, sampling: Sampling, on_step: Callable[[], None]) -> LatentSet:
        """Draws or noises the items' latents; on_step is called `calls(sampling)` times."""
        latents, at_once = self.latents, self.at_once(sampling)
        if latents is None:
            sampled = sample_trajectories(model, self.items, sampling, on_step, at_once)
            if not self.noised:
                return sampled
            latents = sampled.x0
        return noised_latents(model, self.items, latents, sampling.steps, on_step, at_once)


def bank_sources(
    needs: Needs, prompts: Prompts, settings: BankSettings, latents: UserLatents = NO_LATENTS
) -> list[Source]:
    """Where the forget latents come from and, when the method uses them, the retain latents.

    Raises ValueError when the number of the user's latents does not fit the prompts.
    """
    items = forget_items(prompts.pairs, settings.items, settings.seed, needs.guides)
    if latents.forget is not None:
        pairs = _one_each(prompts.pairs, len(latents.forget), "forget")
        items = [BankItem(*pair, pair[0], (settings.seed + index) % SEEDS) for index, pair in enumerate(pairs)]
    sources = [Source(items, latents.forget, needs.noised)]
    if needs.retain:
        items = retain_items(held_prompts(prompts), settings.items, settings.seed)
        if latents.retain is not None:
            held = _one_each(prompts.retain, len(latents.retain), "retain")
            items = retain_items(held, len(held), settings.seed)
        sources.append(Source(items, latents.retain, needs.noised))
    return sources


def check_sizes(sources: Sequence[Source], like: Tensor) -> None:
    """Raises ValueError for halves of unequal sizes; the base draws latents like `like` [1, C, *spatial]."""
    sizes = [(like if source.latents is None else source.latents).shape[2:] for source in sources]
    if len(set(sizes)) > 1:
        first, second = ("x".join(map(str, size)) for size in sizes)
        raise ValueError(
            f"latents: those to forget are {first}, those to retain {second}, as width and height say where none are "
            "given; make them equal"
        )


def make_bank(
    model: DiffusionModel, sources: Sequence[Source], sampling: Sampling, on_step: Callable[[], None]
) -> Bank:
    """Draws or noises the latents of `bank_sources`; on_step is called `Source.calls` times for each of them."""
    forget, *retain = (source.latent_set(model, sampling, on_step) for source in sources)
    return Bank(forget, *retain) if retain else Bank(forget, None)


def forget_items(pairs: Sequence[tuple[str, str]], least: int, seed: int, guides: Sequence[int]) -> list[BankItem]:
    """At least `least` items over the (forget, overwrite) pairs, each followed by twins under the pair's `guides`.

    Guide 0 is the forget prompt, 1 the overwrite prompt: a model that has learned to overwrite visits its latents.
    """
    items = []
    for index in range(max(-(-least // len(guides)), len(pairs))):
        pair = pairs[index % len(pairs)]
        items += [BankItem(*pair, pair[guide], (seed + index) % SEEDS) for guide in guides]
    return items


def retain_items(prompts: Sequence[str], least: int, seed: int) -> list[BankItem]:
    """At least `least` items over the prompts to hold, each its own target."""
    chosen = [prompts[index % len(prompts)] for index in range(max(least, len(prompts)))]
    return [BankItem(prompt, prompt, prompt, (seed + index) % SEEDS) for index, prompt in enumerate(chosen)]


@torch.no_grad()
def sample_trajectories(
    model: DiffusionModel,
    items: Sequence[BankItem],
    sampling: Sampling,
    on_step: Callable[[], None] = lambda: None,
    at_once: int = BATCH,
) -> LatentSet:
    """Samples the items with Euler's method and keeps every step; on_step is called after each."""
    return _join_parts([_sample_batch(model, part, sampling, on_step) for part in _parts(items, at_once)])


@torch.no_grad()
def noised_latents(
    model: DiffusionModel,
    items: Sequence[BankItem],
    latents: Tensor,
    steps: int = 20,
    on_step: Callable[[], None] = lambda: None,
    at_once: int = BATCH,
) -> LatentSet:
    """Each item's picture, a clean latent of `latents` [N, C, *spatial], at `steps` noise levels with its own noise.

    on_step is called after each noise level.
    """
    parts = zip(_parts(items, at_once), latents.split(at_once), strict=True)
    return _join_parts([_noise_batch(model, part, x0.to(model.device), steps, on_step) for part, x0 in parts])


def items_at_once(width: int, height: int) -> int:
    """How many items of this picture size in pixels are sampled together."""
    return batch_size(width, height, PIXELS)


class _Predictions(NamedTuple):
    """The base's noise predictions at one noise level."""

    e_cond: Tensor
    e_uncond: Tensor
    e_overwrite: Tensor

    def cpu(self) -> _Predictions:
        """On the CPU."""
        return _Predictions(*(e.cpu() for e in self))


class _Teacher:
    """The frozen base under the prompts of some items, and everything that it said."""

    def __init__(self, model: DiffusionModel, items: Sequence[BankItem]) -> None:
        self.model = model
        self.items = list(items)
        self.conds = model.encode([item.prompt for item in items])
        self.overwrites = model.encode([item.overwrite for item in items])
        self.unconds = model.encode([""]) * len(items)
        self.same = all(item.overwrite == item.prompt for item in items)
        self.latents: list[Tensor] = []
        self.predictions: list[_Predictions] = []

    def __call__(self, x: Tensor, sigma: Tensor) -> _Predictions:
        """At x [B, C, *spatial] and one sigma []; both are kept, on the CPU."""
        sigmas = sigma.expand(len(x))
        e_cond = noise_prediction(self.model, x, sigmas, self.conds)
        e_uncond = noise_prediction(self.model, x, sigmas, self.unconds)
        e_overwrite = e_cond if self.same else noise_prediction(self.model, x, sigmas, self.overwrites)
        check_prediction(e_cond)
        e = _Predictions(e_cond, e_uncond, e_overwrite)
        self.latents.append(x.cpu())
        self.predictions.append(e.cpu())
        return e

    def latent_set(self, sigmas: Tensor, x0: Tensor) -> LatentSet:
        """What it said at `sigmas` [steps], on the way to x0 [N, C, *spatial]."""
        e_cond, e_uncond, e_overwrite = (torch.stack(column, dim=1) for column in zip(*self.predictions, strict=True))
        x = torch.stack(self.latents, dim=1)
        return LatentSet(self.items, x, x0.cpu(), sigmas, self.conds, self.overwrites, e_cond, e_uncond, e_overwrite)


def _sample_batch(
    model: DiffusionModel, items: list[BankItem], sampling: Sampling, on_step: Callable[[], None]
) -> LatentSet:
    teacher = _Teacher(model, items)
    sigmas = model.sigmas(sampling.steps)
    x = model.noise([item.seed for item in items], sampling.width, sampling.height)
    by_overwrite = torch.tensor([item.guide == item.overwrite for item in items])
    guide_mask = by_overwrite.to(x.device).view(-1, *[1] * (x.ndim - 1))

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        e = teacher(x, sigma)
        on_step()
        return guided(e.e_uncond, torch.where(guide_mask, e.e_overwrite, e.e_cond), sampling.cfg)

    return teacher.latent_set(sigmas[:-1], sample_euler(predict, x, sigmas))


def _noise_batch(
    model: DiffusionModel, items: list[BankItem], x0: Tensor, steps: int, on_step: Callable[[], None]
) -> LatentSet:
    teacher = _Teacher(model, items)
    sigmas = model.sigmas(steps)[:-1]
    generators = [torch.Generator().manual_seed(item.seed) for item in items]
    for sigma in sigmas:
        noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators])
        teacher(model.noised(x0, noise.to(x0), sigma.expand(len(x0))), sigma)
        on_step()
    return teacher.latent_set(sigmas, x0)


def _parts(items: Sequence[BankItem], at_once: int) -> list[list[BankItem]]:
    return [list(items[start : start + at_once]) for start in range(0, len(items), at_once)]


def _join_parts(parts: Sequence[LatentSet]) -> LatentSet:
    columns = {spec.name: [getattr(part, spec.name) for part in parts] for spec in fields(LatentSet)}
    shared = {"sigma": columns.pop("sigma")[0]}
    return LatentSet(**{name: _joined(*values) for name, values in columns.items()}, **shared)


def _joined(first: Any, *others: Any) -> Any:
    """Tensors or lists, one behind the other."""
    return torch.cat([first, *others]) if isinstance(first, Tensor) else sum(others, first)


def _one_each(prompts: Sequence[T], count: int, kind: str) -> Sequence[T]:
    """A prompt for each of `count` latents."""
    if len(prompts) not in (1, count):
        raise ValueError(
            f"{kind} pictures: {count} for {len(prompts)} {kind} prompts; write one prompt for all of them, or one each"
        )
    return list(prompts) * count if len(prompts) == 1 else prompts
