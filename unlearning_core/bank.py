"""Where training latents come from, with every prediction of the frozen base that an objective compares with.

They come from the base's own sampling trajectories, or from pictures (the base's or the user's) at random noise.
Guided sampling needs the base's predictions at each step anyway. They are kept, so that the training loop calls the
trained network only; ESD's reference code restarts a sampling run for every training step instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from .latents import PREDICTIONS, BankItem, LatentSet
from .model import DiffusionModel, check_prediction, noise_prediction
from .processes import current
from .prompts import Prompts, held_prompts
from .sampling import BATCH, SEEDS, Sampling, batch_size, guided, sample_euler
from .settings import BankSettings, Needs

T = TypeVar("T")

PIXELS = BATCH * 512**2  # of the items that are sampled together, at most
HELD = ("e_cond",)  # of these at retain latents
ANSWERS = ("e_overwrite",)  # and at noised pictures for attacks
DOWNSCALE = 8  # pixels to a latent's pixel along each side, near enough to tell how large a picture is


@dataclass(frozen=True)
class Bank:
    """What a run trains on."""

    forget: LatentSet
    retain: LatentSet | None = None  # None when nothing is to be held
    pictures: LatentSet | None = None  # of what is forgotten, noised, for attacks within training


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
    reads: tuple[str, ...]  # what is compared with there

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
            reads = () if self.noised else self.reads
            sampled = sample_trajectories(model, self.items, sampling, on_step, at_once, reads)
            if not self.noised:
                return sampled
            latents = sampled.x0
        return noised_latents(model, replace(self, latents=latents), sampling.steps, on_step, at_once)


def bank_sources(
    needs: Needs, prompts: Prompts, settings: BankSettings, latents: UserLatents = NO_LATENTS
) -> dict[str, Source]:
    """Where each of a Bank's sets comes from, by its name.

    Raises ValueError when the number of the user's latents does not fit the prompts.
    """
    items = forget_items(prompts.pairs, settings.items, settings.seed, needs.guides)
    if latents.forget is not None:
        pairs = _one_each(prompts.pairs, len(latents.forget), "forget")
        items = [BankItem(*pair, pair[0], (settings.seed + index) % SEEDS) for index, pair in enumerate(pairs)]
    sources = {"forget": Source(items, latents.forget, needs.noised, needs.reads)}
    if settings.pictures:
        own = [item for item in items if item.guide == item.prompt] or forget_items(
            prompts.pairs, settings.items, settings.seed, (0,)
        )
        sources["pictures"] = Source(own, latents.forget, noised=True, reads=ANSWERS)
    if needs.retain:
        items = retain_items(held_prompts(prompts), settings.items, settings.seed)
        if latents.retain is not None:
            held = _one_each(prompts.retain, len(latents.retain), "retain")
            items = retain_items(held, len(held), settings.seed)
        sources["retain"] = Source(items, latents.retain, needs.noised, HELD)
    return sources


def check_sizes(sources: Mapping[str, Source], like: Tensor) -> None:
    """Raises ValueError for sets of unequal sizes; the base draws latents like `like` [1, C, *spatial]."""
    sizes = {(like if source.latents is None else source.latents).shape[2:]: None for source in sources.values()}
    if len(sizes) > 1:
        first, second = ("x".join(map(str, size)) for size in sizes)
        raise ValueError(
            f"latents: those to forget are {first}, those to retain {second}, as width and height say where none are "
            "given; make them equal"
        )


def make_bank(
    model: DiffusionModel, sources: Mapping[str, Source], sampling: Sampling, on_step: Callable[[], None]
) -> Bank:
    """Draws or noises the latents of `bank_sources`; on_step is called at most `Source.calls` times for each of them.

    What was drawn for the forget latents is not drawn again to be noised.
    """
    sets: dict[str, LatentSet] = {}
    for name, source in sources.items():
        rows = {item: row for row, item in enumerate(sets["forget"].items)} if sets else {}
        if source.noised and rows.keys() >= set(source.items):
            source = replace(source, latents=sets["forget"].x0[[rows[item] for item in source.items]])
        sets[name] = source.latent_set(model, sampling, on_step)
    return Bank(**sets)


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
    reads: Sequence[str] = PREDICTIONS,
) -> LatentSet:
    """Samples the items with Euler's method and keeps every step, with the predictions `reads`.

    on_step is called after each. Processes share the parts of `at_once` items.
    """
    teachers = [_Teacher(model, part, reads) for part in _parts(items, at_once)]
    told = current().ordered(teachers, lambda teacher: _sample_batch(teacher, sampling, on_step))
    return _joined(teachers, told, model.sigmas(sampling.steps)[:-1])


@torch.no_grad()
def noised_latents(
    model: DiffusionModel,
    source: Source,
    steps: int = 20,
    on_step: Callable[[], None] = lambda: None,
    at_once: int = BATCH,
) -> LatentSet:
    """Each item's picture, a clean latent of the source, at `steps` noise levels with its own noise.

    on_step is called after each noise level. Processes share the parts of `at_once` items.
    """
    assert source.latents is not None
    teachers = [_Teacher(model, part, source.reads) for part in _parts(source.items, at_once)]
    parts = zip(teachers, source.latents.split(at_once), strict=True)
    told = current().ordered(parts, lambda part: _noise_batch(part[0], part[1].to(model.device), steps, on_step))
    return _joined(teachers, told, model.sigmas(steps)[:-1])


def items_at_once(width: int, height: int) -> int:
    """How many items of this picture size in pixels are sampled together."""
    return batch_size(width, height, PIXELS)


class _Teacher:
    """The frozen base under the prompts of some items, and what it said of the predictions `reads`."""

    def __init__(self, model: DiffusionModel, items: Sequence[BankItem], reads: Sequence[str]) -> None:
        self.model = model
        self.items = list(items)
        self._conds = {
            "e_cond": model.encode([item.prompt for item in items]),
            "e_uncond": model.encode([""]) * len(items),
            "e_overwrite": model.encode([item.overwrite for item in items]),
        }
        self._latents: list[Tensor] = []
        self._said: dict[str, list[Tensor]] = {name: [] for name in reads}

    def __call__(self, x: Tensor, sigma: Tensor, guides: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """At x [B, C, *spatial] and one sigma []: what is read, of all rows, and `guides` of the rows of their masks.

        Other rows are 0. x and what is read are kept, on the CPU.
        """
        everything = torch.ones(len(x), dtype=torch.bool)
        asked = {**guides, **dict.fromkeys(self._said, everything)}
        e = {name: self._predict(name, x, sigma, rows) for name, rows in asked.items()}
        self._latents.append(x.cpu())
        for name, said in self._said.items():
            said.append(e[name].cpu())
        return e

    def told(self, x0: Tensor) -> dict[str, Tensor]:
        """What it said, by name, with the latents x on the way to x0 [N, C, *spatial], on the CPU."""
        said = {name: torch.stack(said, dim=1) for name, said in self._said.items()}
        return {"x": torch.stack(self._latents, dim=1), "x0": x0.cpu(), **said}

    def latent_set(self, told: Mapping[str, Tensor], sigmas: Tensor) -> LatentSet:
        """What it `told` at `sigmas` [steps], here or in another process."""
        base = {name: told[name] for name in self._said}
        conds, overwrites = self._conds["e_cond"], self._conds["e_overwrite"]
        return LatentSet(self.items, told["x"], told["x0"], sigmas, conds, overwrites, base)

    def _predict(self, name: str, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        e = torch.zeros_like(x)
        chosen = rows.nonzero().flatten()
        if len(chosen):
            conds = [self._conds[name][row] for row in chosen.tolist()]
            own = x if len(chosen) == len(x) else x[chosen.to(x.device)]
            said = noise_prediction(self.model, own, sigma.expand(len(own)), conds)
            check_prediction(said)
            e[chosen.to(x.device)] = said
        return e


def _sample_batch(teacher: _Teacher, sampling: Sampling, on_step: Callable[[], None]) -> dict[str, Tensor]:
    model, items = teacher.model, teacher.items
    sigmas = model.sigmas(sampling.steps)
    x = model.noise([item.seed for item in items], sampling.width, sampling.height)
    by_overwrite = torch.tensor([item.guide == item.overwrite != item.prompt for item in items])
    guided_rows = torch.full_like(by_overwrite, sampling.cfg != 1)
    guides = {"e_uncond": guided_rows, "e_cond": ~by_overwrite, "e_overwrite": by_overwrite}
    guide_mask = by_overwrite.to(x.device).view(-1, *[1] * (x.ndim - 1))

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        e = teacher(x, sigma, guides)
        on_step()
        return guided(e["e_uncond"], torch.where(guide_mask, e["e_overwrite"], e["e_cond"]), sampling.cfg)

    return teacher.told(sample_euler(predict, x, sigmas))


def _noise_batch(teacher: _Teacher, x0: Tensor, steps: int, on_step: Callable[[], None]) -> dict[str, Tensor]:
    model = teacher.model
    sigmas = model.sigmas(steps)[:-1]
    generators = [torch.Generator().manual_seed(item.seed) for item in teacher.items]
    for sigma in sigmas:
        noise = torch.stack([torch.randn(x0.shape[1:], generator=generator) for generator in generators])
        teacher(model.noised(x0, noise.to(x0), sigma.expand(len(x0))), sigma, {})
        on_step()
    return teacher.told(x0)


def _parts(items: Sequence[BankItem], at_once: int) -> list[list[BankItem]]:
    return [list(items[start : start + at_once]) for start in range(0, len(items), at_once)]


def _joined(teachers: Sequence[_Teacher], told: Iterable[Mapping[str, Tensor]], sigmas: Tensor) -> LatentSet:
    parts = [teacher.latent_set(each, sigmas) for teacher, each in zip(teachers, told, strict=True)]

    def together(latents: list[Tensor]) -> Tensor:
        joined = torch.cat(latents)
        return joined.pin_memory() if sigmas.device.type == "cuda" else joined

    return LatentSet(
        items=[item for part in parts for item in part.items],
        x=together([part.x for part in parts]),
        x0=together([part.x0 for part in parts]),
        sigma=sigmas,
        conds=[cond for part in parts for cond in part.conds],
        overwrites=[cond for part in parts for cond in part.overwrites],
        base={name: together([part.base[name] for part in parts]) for name in parts[0].base},
    )


def _one_each(prompts: Sequence[T], count: int, kind: str) -> Sequence[T]:
    """A prompt for each of `count` latents."""
    if len(prompts) not in (1, count):
        raise ValueError(
            f"{kind} pictures: {count} for {len(prompts)} {kind} prompts; write one prompt for all of them, or one each"
        )
    return list(prompts) * count if len(prompts) == 1 else prompts
