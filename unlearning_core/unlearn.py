"""Unlearning from start to end: prompts and settings in, a patch out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .bank import (
    SEEDS,
    Bank,
    Run,
    Trajectories,
    forget_runs,
    noised_trajectories,
    retain_runs,
    runs_at_once,
    sample_trajectories,
    trajectory_calls,
)
from .deltas import Delta, make_deltas
from .fingerprint import Fingerprint
from .methods import ClosedForm, GradientMethod, Method
from .methods.base import Texts, Training, aligned, gram
from .model import DiffusionModel, matching, select
from .patch import Record, UnlearningPatch
from .probes import text_inputs
from .prompts import Prompts
from .train import Progress, Reporter, Settings, train

T = TypeVar("T")
DOWNSCALE = 8  # pixels to a latent's pixel along each side, near enough to tell how large a picture is
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Pictures:
    """Clean latents [N, C, H, W] in the model's own scale, to train on in place of the base's own pictures.

    As many as there are prompts, or any number for a single prompt.
    """

    forget: Tensor | None = None
    retain: Tensor | None = None


@dataclass(frozen=True)
class Source:
    """Where one half of the bank comes from."""

    runs: list[Run]
    pictures: Tensor | None  # the user's; else the base draws them
    noised: bool  # pictures at random noise, in place of the way to them

    def calls(self, settings: Settings) -> int:
        """How many steps `trajectories` reports."""
        passes = (self.pictures is None) + (self.noised or self.pictures is not None)
        return passes * trajectory_calls(self.runs, settings.run_steps, self.at_once(settings))

    def at_once(self, settings: Settings) -> int:
        """How many runs are sampled together."""
        if self.pictures is None:
            return runs_at_once(settings.width, settings.height)
        return runs_at_once(*(DOWNSCALE * side for side in self.pictures.shape[-2:]))

    def trajectories(self, model: DiffusionModel, settings: Settings, on_step: Callable[[], None]) -> Trajectories:
        pictures, at_once = self.pictures, self.at_once(settings)
        if pictures is None:
            size, steps = (settings.width, settings.height), settings.run_steps
            sampled = sample_trajectories(model, self.runs, *size, steps, settings.run_cfg, on_step, at_once)
            if not self.noised:
                return sampled
            pictures = sampled.x0
        return noised_trajectories(model, self.runs, pictures, settings.run_steps, on_step, at_once)


def unlearn(
    model: DiffusionModel,
    method: Method,
    prompts: Prompts,
    settings: Settings,
    on_progress: OnProgress = lambda progress: None,
    pictures: Pictures = Pictures(),
) -> UnlearningPatch:
    """The change that makes the model forget; the model is left as it was.

    Patches that are already on the model count as part of the base. Raises ValueError when the model lacks the selected
    weights, the method cannot use the settings or pictures, or the loss is no longer a number.
    """
    check_settings(method, settings)
    names = selected(method, list(model.weights()), settings.weights)
    base = Fingerprint.of(model.weights(), model.changes())
    if isinstance(method, ClosedForm):
        tensors = _solve(model, method, prompts, names, on_progress)
    else:
        assert isinstance(method, GradientMethod)
        sources = bank_sources(method, prompts, settings, pictures)
        total = sum(source.calls(settings) for source in sources) + method.preparation + settings.steps
        report = Reporter(on_progress, total)
        deltas = new_deltas(model, settings)
        fit(model, method, make_bank(model, sources, settings, report), deltas, settings, base, report)
        tensors = lora_tensors(deltas)
    return UnlearningPatch(tensors, Record.of(method, prompts, settings, base))


def check_settings(method: Method, settings: Settings) -> None:
    """Raises ValueError for settings that the method cannot use on any model."""
    if settings.rank and not method.low_rank:
        raise ValueError(f"rank: {method.label} changes full weights; set rank to 0")
    if isinstance(method, ClosedForm) and settings.weights not in method.selections:
        raise method.needs_text()


def selected(method: Method, names: Sequence[str], selection: str) -> list[str]:
    """The sorted names of the weights to change. Raises ValueError when the model lacks those that the method needs."""
    if not isinstance(method, ClosedForm):
        return select(names, selection)
    texts = matching(names, "text_projections")
    if not texts:
        raise ValueError(
            f"method: {method.label} changes layers that read the text and nothing else, and this model has none; "
            "choose a method that trains"
        )
    chosen = select(names, selection)
    if not set(chosen) <= set(texts):
        raise method.needs_text()
    return chosen


def all_prompts(prompts: Prompts) -> list[str]:
    """Every prompt that `unlearn` encodes."""
    return list(dict.fromkeys([*prompts.forget, *prompts.overwrite, *held_prompts(prompts)]))


def held_prompts(prompts: Prompts) -> list[str]:
    """What L_help holds: the retain prompts, the empty prompt and the overwrite targets."""
    return list(dict.fromkeys([*prompts.retain, "", *prompts.overwrite]))


def bank_sources(
    method: GradientMethod, prompts: Prompts, settings: Settings, pictures: Pictures = Pictures()
) -> list[Source]:
    """Where the forget latents come from and, when the method uses them, the retain latents.

    Raises ValueError when the number of pictures does not fit the prompts.
    """
    runs = forget_runs(prompts.pairs, settings.runs, settings.seed, method.guides)
    if pictures.forget is not None:
        pairs = _one_each(prompts.pairs, len(pictures.forget), "forget")
        runs = [Run(*pair, pair[0], (settings.seed + index) % SEEDS) for index, pair in enumerate(pairs)]
    sources = [Source(runs, pictures.forget, method.noised)]
    if method.needs_retain:
        runs = retain_runs(held_prompts(prompts), settings.runs, settings.seed)
        if pictures.retain is not None:
            held = _one_each(prompts.retain, len(pictures.retain), "retain")
            runs = retain_runs(held, len(held), settings.seed)
        sources.append(Source(runs, pictures.retain, method.noised))
    return sources


def make_bank(
    model: DiffusionModel, sources: Sequence[Source], settings: Settings, on_step: Callable[[], None]
) -> Bank:
    """Draws or noises the latents of `bank_sources`."""
    forget, *retain = (source.trajectories(model, settings, on_step) for source in sources)
    return Bank(forget, *retain) if retain else Bank(forget, None)


def fit(
    model: DiffusionModel,
    method: GradientMethod,
    bank: Bank,
    deltas: Mapping[str, Delta],
    settings: Settings,
    base: Fingerprint,
    report: Reporter,
) -> None:
    """Trains the deltas, from the method's preparation to the last step."""
    generator = torch.Generator().manual_seed(settings.seed)
    begun = report.done + method.preparation
    training = Training(model, bank, deltas, base, settings.learning_rate, settings.batch_size, generator, report)
    objective = method.begin(training)
    report.done = begun  # also when the method remembered what it would have prepared
    with model.attach(deltas):
        train(model, method, objective, deltas, bank, settings, generator, report)


def new_deltas(model: DiffusionModel, settings: Settings) -> dict[str, Delta]:
    """Untrained deltas of the selected weights. Raises ValueError when the model lacks them, or rank does not fit."""
    weights = model.weights()
    chosen = {name: weights[name] for name in select(list(weights), settings.weights)}
    return make_deltas(chosen, settings.rank, settings.seed, model.device, settings.lora_scale)


def lora_tensors(deltas: Mapping[str, Delta]) -> dict[str, Tensor]:
    """What the deltas are now, under LoRA-file keys, on the CPU."""
    items = [item for name, delta in deltas.items() for item in delta.tensors(name).items()]
    return {key: tensor.detach().cpu().clone() for key, tensor in items}


@torch.no_grad()
def _solve(
    model: DiffusionModel, method: ClosedForm, prompts: Prompts, names: Sequence[str], on_progress: OnProgress
) -> dict[str, Tensor]:
    """The closed form's change of each weight, in the weight's own shape."""
    asked = all_prompts(prompts)
    report = Reporter(on_progress, len(asked))
    tokens = {}
    for prompt in asked:
        tokens[prompt] = text_inputs(model, names, prompt)
        report()
    weights, changes = model.weights(), model.changes()
    tensors = {}
    for group in _sharing(tokens[""]):
        seen = {prompt: inputs[group[0]] for prompt, inputs in tokens.items()}
        current = [
            weights[name].float() + changes.get(name, torch.zeros(())).to(weights[name].device) for name in group
        ]
        stacked = torch.cat([weight.flatten(1) for weight in current]).to(seen[""])
        parts = method.edit(stacked, layer_texts(prompts, seen)).split([len(weight) for weight in current])
        for name, weight, change in zip(group, current, parts, strict=True):
            tensors[f"{name.removesuffix('.weight')}.diff"] = change.reshape(weight.shape).float().cpu()
    return tensors


def _sharing(tokens: Mapping[str, Tensor]) -> list[list[str]]:
    """The names that share one tensor, group by group."""
    groups: dict[int, list[str]] = {}
    for name, inputs in tokens.items():
        groups.setdefault(id(inputs), []).append(name)
    return list(groups.values())


def layer_texts(prompts: Prompts, tokens: Mapping[str, Tensor]) -> Texts:
    """What the prompts feed into a layer, from the tokens [T, D] that reach it under each prompt."""
    forget, overwrite = zip(*(aligned(tokens[pair[0]], tokens[pair[1]]) for pair in prompts.pairs), strict=True)
    return Texts(torch.cat(forget), torch.cat(overwrite), gram([tokens[prompt] for prompt in held_prompts(prompts)]))


def _one_each(prompts: Sequence[T], count: int, kind: str) -> Sequence[T]:
    """A prompt for each of `count` pictures."""
    if len(prompts) not in (1, count):
        raise ValueError(
            f"{kind} pictures: {count} for {len(prompts)} {kind} prompts; write one prompt for all of them, or one each"
        )
    return list(prompts) * count if len(prompts) == 1 else prompts
