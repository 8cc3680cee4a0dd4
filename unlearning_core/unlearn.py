"""Unlearning from start to end: prompts and settings in, a patch out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from torch import Tensor

from . import __version__
from .adversaries import Adversaries
from .bank import NO_LATENTS, Bank, Source, UserLatents, bank_sources, check_sizes, make_bank
from .deltas import UNPROTECTED, Delta, Directions, left_out, make_deltas
from .encodings import check_encodings
from .fingerprint import Fingerprint
from .methods import ClosedForm, GradientMethod, Method, name_of
from .methods.base import Training
from .model import DiffusionModel
from .patch import Record, UnlearningPatch
from .probes import check_reached
from .processes import check_batch
from .progress import TRAINING, OnProgress, Reporter
from .prompts import Prompts
from .protection import protected_directions, summary
from .relearner import Relearner
from .selections import Selections, selections_of
from .settings import Settings
from .solve import solve
from .train import train
from .wordings import other_wordings, steps_of

log = logging.getLogger(__name__)


def unlearn(
    model: DiffusionModel,
    method: Method,
    prompts: Prompts,
    settings: Settings,
    on_progress: OnProgress = lambda progress: None,
    latents: UserLatents = NO_LATENTS,
) -> UnlearningPatch:
    """The change that makes the model forget; the model is left as it was.

    Patches that are already on the model count as part of the base. Processes that share the run (see `processes`)
    share the base's trajectories and each batch of a method that trains, and all return the patch. `on_progress` may
    end training early, by `Enough`: the patch is that of the steps so far, and its record says how many.

    Raises ValueError when the model lacks the selected weights or lets no gradient pass to one, the method cannot use
    the settings or latents, a batch has fewer rows than there are processes, a forget prompt encodes as one that is to
    stay, the loss is no longer a number, or the patch would change nothing.
    """
    method.check_settings(settings)
    names = selected(method, selections_of(model, settings.size), settings.weights)
    check_encodings(model, prompts)
    base = model.fingerprint()
    report = Reporter(on_progress)
    trained = settings.steps
    if isinstance(method, ClosedForm):
        wordings = find_wordings(model, prompts, settings, report)
        tensors = solve(model, method, prompts.reworded(wordings), names, settings.size, report)
    else:
        assert isinstance(method, GradientMethod)
        sources = checked_sources(model, method, prompts, settings, latents)
        calls = sum(source.calls(settings.sampling) for source in sources.values())
        report.expect(calls + method.preparation + settings.steps)
        deltas = reached_deltas(model, settings, prompts, report)
        wordings = find_wordings(model, prompts, settings, report)
        found = report.done
        report.begin("sampling the base", calls)
        bank = make_bank(model, sources, settings.sampling, report)
        report.done = found + calls  # also where other processes made some of them
        worded = replace(bank, forget=bank.forget.worded(model, wordings))
        trained = fit(method, new_training(model, worded, deltas, settings, base, report))
        tensors = lora_tensors(deltas)
    record = record_of(method, prompts, settings, base, wordings)
    patch = UnlearningPatch(tensors, replace(record, stopped=trained if trained < settings.steps else None))
    patch.check_change()
    return patch


def checked_sources(
    model: DiffusionModel, method: GradientMethod, prompts: Prompts, settings: Settings, latents: UserLatents
) -> dict[str, Source]:
    """Where the latents come from. Raises ValueError for latents and batches that do not fit."""
    check_batch(settings.batch_size)
    like = model.noise([0], settings.width, settings.height)
    latents.check(like)
    sources = bank_sources(method.needs, prompts, settings.bank, latents)
    check_sizes(sources, like)
    return sources


def reached_deltas(model: DiffusionModel, settings: Settings, prompts: Prompts, report: Reporter) -> dict[str, Delta]:
    """Untrained deltas that training can move, with a note of what they keep to or leave out. Raises ValueError."""
    report.begin("reading the prompts", 0)
    protected = protected_directions(model, settings, prompts)
    for line in summary(protected):
        report.tell(line)
    deltas = new_deltas(model, settings, protected)
    if settings.rank and (lost := left_out(chosen_weights(model, settings))):
        log.warning("rank: %s; rank 0 trains all", lost)
    check_reached(model, deltas, prompts.forget[0], settings.size)
    return deltas


def find_wordings(
    model: DiffusionModel, prompts: Prompts, settings: Settings, report: Reporter
) -> dict[str, list[str]]:
    """Other wordings of each forget prompt, with a note of them; none where the settings ask for none."""
    if not settings.wordings:
        return {}
    report.expect(steps_of(prompts))
    report.begin("looking for other wordings", steps_of(prompts))
    wordings = other_wordings(model, prompts, settings.sampling, settings.wordings, report)
    report.tell(f"other wordings: {', '.join(text for texts in wordings.values() for text in texts) or 'none found'}")
    return wordings


def record_of(
    method: Method,
    prompts: Prompts,
    settings: Settings,
    base: Fingerprint,
    wordings: dict[str, list[str]] | None = None,
) -> Record:
    """How a patch is made, for its file."""
    return Record(
        method=name_of(method),
        options=asdict(method),
        forget=list(prompts.forget),
        overwrite=list(prompts.overwrite),
        retain=list(prompts.retain),
        settings=asdict(settings),
        base=base,
        versions={"unlearning": __version__, "torch": torch.__version__},
        wordings=wordings or None,
    )


def selected(method: Method, selections: Selections, selection: str) -> list[str]:
    """The sorted names of the weights to change. Raises ValueError when the model lacks those that the method needs."""
    if not isinstance(method, ClosedForm):
        return selections.of(selection)
    texts = selections.matching("text_projections")
    if not texts:
        raise ValueError(
            f"method: {method.label} changes layers that read the text and nothing else, and this model has none; "
            "choose a method that trains"
        )
    chosen = selections.of(selection)
    if not set(chosen) <= set(texts):
        raise method.needs_text()
    return chosen


def new_training(
    model: DiffusionModel,
    bank: Bank,
    deltas: Mapping[str, Delta],
    settings: Settings,
    base: Fingerprint,
    report: Reporter,
) -> Training:
    """A training run that has not begun, with a random generator of its own."""
    return Training(
        model=model,
        bank=bank,
        deltas=deltas,
        base=base,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        retain_ratio=settings.retain_ratio,
        generator=torch.Generator().manual_seed(settings.seed),
        report=report,
        adversaries=new_adversaries(model, bank, settings),
        relearner=new_relearner(model, bank, settings),
    )


def new_adversaries(model: DiffusionModel, bank: Bank, settings: Settings) -> Adversaries | None:
    """Those that the settings ask for, which start from the texts of the bank."""
    if bank.pictures is None or not settings.adversaries:
        return None
    kept = bank.retain.items if bank.retain else []
    texts = dict.fromkeys([*(item.prompt for item in bank.pictures.items), "", *(item.prompt for item in kept)])
    return Adversaries(model, bank.pictures, list(texts), settings.adversaries, settings.seed)


def new_relearner(model: DiffusionModel, bank: Bank, settings: Settings) -> Relearner | None:
    """The one that the settings ask for."""
    if bank.pictures is None or not settings.relearning:
        return None
    return Relearner(model, bank.pictures, settings.relearning, settings.rank, settings.learning_rate)


def fit(method: GradientMethod, training: Training) -> int:
    """Trains the deltas, from the method's preparation to the last step, and returns how many steps were taken.

    Raises ValueError as `train` does.
    """
    report, begun = training.report, training.report.done + method.preparation
    report.begin("preparing", method.preparation)
    objective = method.begin(training)
    report.done = begun  # also when the method remembered what it would have prepared
    report.begin(TRAINING, training.steps)
    with training.model.attach(training.attached):
        return train(training, method, objective)


def new_deltas(
    model: DiffusionModel, settings: Settings, protected: Mapping[str, Directions] = UNPROTECTED
) -> dict[str, Delta]:
    """Untrained deltas of the selected weights. Raises ValueError when the model lacks them, or rank does not fit.

    `protected` weights keep to their directions, and the biases beside them do not train.
    """
    biases = {f"{name.removesuffix('.weight')}.bias" for name in protected}
    chosen = {name: weight for name, weight in chosen_weights(model, settings).items() if name not in biases}
    return make_deltas(chosen, settings.rank, settings.seed, model.device, settings.lora_scale, protected)


def chosen_weights(model: DiffusionModel, settings: Settings) -> dict[str, Tensor]:
    """The weights to train, by patch name. Raises ValueError when the model lacks them."""
    weights = model.weights()
    return {name: weights[name] for name in selections_of(model, settings.size).of(settings.weights)}


def lora_tensors(deltas: Mapping[str, Delta]) -> dict[str, Tensor]:
    """What the deltas are now, under LoRA-file keys, on the CPU."""
    items = [item for name, delta in deltas.items() for item in delta.tensors(name).items()]
    return {key: tensor.detach().cpu().clone() for key, tensor in items}
