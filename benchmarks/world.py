"""The shipped model with its judges, in which benchmarks train methods and measure them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from benchmarks.bootstrap import frechet_distances, means
from benchmarks.contenders import SAMPLING, Contender, method_of, settings_of
from benchmarks.keeping import kept, peak_memory, remembered
from benchmarks.tasks import Task, drawings_of
from unlearning_core.bank import Bank, bank_sources, make_bank
from unlearning_core.fingerprint import Fingerprint
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import device_name, draw
from unlearning_core.methods import GradientMethod
from unlearning_core.methods.sa import fisher_cache
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.figure import Measured, values_of
from unlearning_core.metrics.forgetting import accuracies
from unlearning_core.metrics.frechet import alexnet_features, frechet_distance
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import Draw, Plan, PromptSeed, prompt_seeds_of
from unlearning_core.metrics.quality import Networks, measure_quality
from unlearning_core.metrics.retention import Comparison, distances_of, measure
from unlearning_core.patch import UnlearningPatch
from unlearning_core.progress import TRAINING, Progress, Reporter
from unlearning_core.sampling import Sampling
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.world import prompts as every_prompt
from unlearning_core.unlearn import (
    find_wordings,
    fit,
    lora_tensors,
    new_training,
    reached_deltas,
    record_of,
    unlearn,
)

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SEARCH_SAMPLING = Sampling(steps=15, cfg=3.0, width=128, height=128)
SEARCH_TRAININGS = range(3)  # training seeds that a setting has to forget with, in the mean
SEARCH_SEED = 500  # of the search's pictures; the comparison's start at 1000
SEEDS = range(1000, 1002)  # of the retain pictures, the first of the forget pictures too
OTHER_SEEDS = range(2000, 2004)  # of the pictures that they are compared with as a set
ENOUGH = 0.95  # UA at which methods are compared
UNSET: Mapping[str, float] = MappingProxyType({})
STRENGTHS = (0.5, 0.75, 1.0, 1.25)  # of the trade-off curve


@cache
def shared_world(device: str = "cpu") -> World:
    """The one of this process."""
    return World(device)


def found(pair: tuple[Task, Contender], device: str) -> None:
    """Chooses a method's setting."""
    shared_world(device).found(*pair)


def training_seeds(contender: Contender, seeds: int) -> range:
    """Closed forms draw nothing at random."""
    return range(seeds if contender.trains else 1)


def search(world: World, task: Task, contender: Contender) -> dict[str, Any]:
    """Of the settings with UA >= ENOUGH, the one with the lowest I; without any, the one with the highest UA.

    From each group only the weakest setting that forgets enough can win, so no stronger one is tried.
    """
    tried: list[tuple[float, float, dict[str, float]]] = []
    for group in contender.groups():
        ua, patch, setting = world.weakest(task, contender, group)
        tried.append((ua, world.moved(task, patch), setting))
        log.info("%s, %s: %s, UA %.3f, I %.4f", task.name, contender.name, setting, ua, tried[-1][1])
    enough = [entry for entry in tried if entry[0] >= ENOUGH]
    _, _, setting = min(enough, key=lambda entry: entry[1]) if enough else max(tried, key=lambda entry: entry[0])
    return {"setting": setting, "reached": bool(enough)}


class EnoughForgotten(Exception):
    """Ends a training in the search."""


class World:
    """The shipped model with its judges, and what several methods share: base pictures and banks."""

    def __init__(self, device: str = "cpu") -> None:
        self.model = load(MODEL, device)
        self.lpips = Lpips("alex", device=device)
        self.judge = Judge.load()
        self.clip = Clip.load(SHIPPED_FOLDER, device)
        self.base = {
            sampling: remembered(partial(draw, self.model, sampling=sampling))
            for sampling in (SAMPLING, SEARCH_SAMPLING)
        }
        self.base_again = remembered(partial(draw, self.model, sampling=SAMPLING))
        self.calls = 0
        self.model.denoiser.register_forward_pre_hook(self.count_call)
        self.banks: dict[str, Bank] = {}
        self.referred: dict[str, dict[str, Tensor]] = {}
        self.worded: dict[str, dict[str, list[str]]] = {}
        self.patches: dict[str, UnlearningPatch] = {}
        self.weights = sha256(b"".join(map(Path.read_bytes, sorted(MODEL.rglob("*.safetensors"))))).hexdigest()

    def row(self, task: Task, contender: Contender, seed: int) -> dict[str, Any]:
        """A method's row of one training seed."""
        found, name = self.found(task, contender), f"{task.name} {contender.name} {seed}"
        made_with = self.made_with(contender, task, found["setting"])
        figures = kept(name, made_with, partial(self.run, task, contender, found["setting"], seed))
        log.info("%s: %s", name, {key: figures[key] for key in ("ua", "integrity")})
        row = {"task": task.name, "name": contender.name, "seed": seed, "reached": figures["ua"] >= ENOUGH}
        return {**row, **found, **figures}

    def found(self, task: Task, contender: Contender) -> dict[str, Any]:
        """What the search chose for a task's method; a preset has one setting, and is not searched."""
        settings = [setting for group in contender.groups() for setting in group]
        if len(settings) == 1:
            steps = {"steps": settings_for(task, contender, settings[0], 0).steps}
            return {"setting": steps if contender.trains else {}}
        name, made_with = f"{task.name} {contender.name} search", self.made_with(contender, task)
        first = kept(name, made_with, lambda: search(self, task, contender))
        if not contender.trains:
            return first
        return kept(f"{name}, more seeds", made_with, lambda: self.steadied(task, contender, first["setting"]))

    def steadied(self, task: Task, contender: Contender, setting: dict[str, float]) -> dict[str, Any]:
        """That setting, or the next one of its group with which several training seeds forget enough in the mean."""
        group = next(group for group in contender.groups() if setting in group)
        for stronger in group[group.index(setting) :]:
            patches = [self.unlearned(task, contender, stronger, seed) for seed in SEARCH_TRAININGS]
            ua = fmean(self.forgotten(task, self.patched(patch, SEARCH_SAMPLING)) for patch in patches)
            log.info("%s, %s: %s, UA %.3f of %d trainings", task.name, contender.name, stronger, ua, len(patches))
            if ua >= ENOUGH:
                return {"setting": stronger, "reached": True}
        return {"setting": stronger, "reached": False}

    def kept_cost(self, task: Task, contender: Contender) -> dict[str, Any]:
        """What that setting costs."""
        name, setting = f"{task.name} {contender.name} cost", self.found(task, contender)["setting"]
        return kept(name, self.made_with(contender, task, setting), lambda: self.cost(task, contender, setting))

    def shared(self) -> str:
        """What all figures depend on, besides the code."""
        return " ".join([repr(SAMPLING), repr(SEARCH_SAMPLING), repr(ENOUGH), self.weights])

    def made_with(self, contender: Contender, task: Task, setting: Mapping[str, float] = UNSET) -> str:
        """What the figures of a row with this setting, or of the search for one, depend on besides the code."""
        settings = settings_for(task, contender, setting, 0)
        return " ".join([self.shared(), repr(contender), repr(method_of(contender, setting)), repr(settings)])

    def weakest(
        self, task: Task, contender: Contender, group: list[dict[str, float]]
    ) -> tuple[float, UnlearningPatch, dict[str, float]]:
        """The first setting of a group that forgets enough, or its last one, with its UA and patch."""
        found: list[tuple[float, UnlearningPatch, dict[str, float]]] = []
        if contender.trains:
            by_steps = {setting["steps"]: setting for setting in group}

            def look(steps: int, patch: Callable[[], UnlearningPatch]) -> None:
                if steps in by_steps:
                    found.append((self.forgotten(task, self.trained(SEARCH_SAMPLING)), patch(), by_steps[steps]))
                    if found[-1][0] >= ENOUGH:
                        raise EnoughForgotten

            with suppress(EnoughForgotten):
                self.train(task, contender, group[-1], 0, look)
            _, patch, setting = found[-1]
            self.patches[training_key(task, contender, setting, 0)] = patch
            return found[-1]
        for setting in group:
            patch = self.unlearned(task, contender, setting, 0)
            found.append((self.forgotten(task, self.patched(patch, SEARCH_SAMPLING)), patch, setting))
            if found[-1][0] >= ENOUGH:
                break
        return found[-1]

    def solve(self, task: Task, contender: Contender, setting: dict[str, float]) -> UnlearningPatch:
        """A closed form's patch."""
        method = method_of(contender, setting)
        return unlearn(self.model, method, task.prompts, settings_for(task, contender, setting, 0))

    def train(
        self,
        task: Task,
        contender: Contender,
        setting: dict[str, float],
        seed: int,
        look: Callable[[int, Callable[[], UnlearningPatch]], None] = lambda steps, patch: None,
    ) -> UnlearningPatch:
        """One training on a shared bank; `look` may take the patch after every step."""
        method = method_of(contender, setting)
        assert isinstance(method, GradientMethod)
        settings = settings_for(task, contender, setting, seed)
        deltas = reached_deltas(self.model, settings, task.prompts, Reporter())
        base = Fingerprint.of(self.model.weights())
        wordings = self.wordings(task, settings)
        record = record_of(method, task.prompts, settings, base, wordings)

        def trained() -> UnlearningPatch:
            return UnlearningPatch(lora_tensors(deltas), record)

        def on_progress(progress: Progress) -> None:
            if progress.phase == TRAINING:
                look(progress.step, trained)

        bank = self.bank(task, method, settings)
        worded = replace(bank, forget=bank.forget.worded(self.model, wordings))
        fit(method, new_training(self.model, worded, deltas, settings, base, Reporter(on_progress)))
        return trained()

    def wordings(self, task: Task, settings: Settings) -> dict[str, list[str]]:
        """Those of a task, looked for once."""
        key = repr((task.name, settings.wordings))
        if key not in self.worded:
            self.worded[key] = find_wordings(self.model, task.prompts, settings, Reporter())
        return self.worded[key]

    def bank(self, task: Task, method: GradientMethod, settings: Settings) -> Bank:
        """The latents of a task and seed, drawn once for all methods that train on the same ones."""
        sources = bank_sources(method.needs, task.prompts, settings.bank)
        key = repr(sources)
        if key not in self.banks:
            self.banks[key] = make_bank(self.model, sources, settings.sampling, lambda: None)
        return self.banks[key]

    def forgotten(self, task: Task, drawing: Draw) -> float:
        """UA on the search's pictures."""
        prompt_seeds = [
            (prompt, SEARCH_SEED + index) for prompt in task.forget for index in range(task.forget_seeds // 4)
        ]
        ua = accuracies(self.judge, drawing(prompt_seeds), [prompt for prompt, _ in prompt_seeds], task.forget).ua
        assert ua is not None
        return ua

    def moved(self, task: Task, patch: UnlearningPatch, strength: float = 1.0) -> float:
        """I on the search's pictures."""
        prompt_seeds = [(prompt, SEARCH_SEED) for prompt in task.retain]
        after = self.patched(patch, SEARCH_SAMPLING, strength)(prompt_seeds)
        return self.lpips.distance(self.base[SEARCH_SAMPLING](prompt_seeds), after).mean().item()

    def run(self, task: Task, contender: Contender, setting: dict[str, float], seed: int) -> dict[str, Any]:
        """All figures of one training seed but what it cost."""
        patch = self.unlearned(task, contender, setting, seed)
        after = remembered(self.patched(patch, SAMPLING))
        result = self.measure(task, self.base[SAMPLING], after)
        return {
            **values_of(result),
            **self.chance(task, result),
            "device": device_name(self.model.device),
            "patch MB": sum(tensor.nbytes for tensor in patch.tensors.values()) / 1e6,
            "curve": [self.point(task, patch, strength) for strength in STRENGTHS],
        }

    def chance(self, task: Task, result: Measured) -> dict[str, Any]:
        """Fréchet distances from pictures of other seeds and from drawings, and what resamples of the prompts give."""
        assert result.retention is not None and result.quality is not None
        seen, prompts = result.quality.embeddings, [prompt for prompt, _ in prompt_seeds_of(task.retain, SEEDS)]
        features = seen.alexnet.unflatten(0, (len(task.retain), -1))
        references = self.references(task)
        distances = torch.tensor([distance for _, distance in distances_of(result.retention.retain)])
        scores = self.clip.scores(seen.retain, prompts)
        return {
            **{name: frechet_distance(features.flatten(0, 1), each.flatten(0, 1)) for name, each in references.items()},
            "resampled": {
                "integrity": means(distances.view(len(task.retain), -1)),
                "clip score retain": means(scores.view(len(task.retain), -1)),
                **{name: frechet_distances(features, each) for name, each in references.items()},
            },
        }

    def references(self, task: Task) -> dict[str, Tensor]:
        """Features [retain prompts, pictures of each, D] of the base's pictures of other seeds, and of drawings."""
        if task.name not in self.referred:
            others = self.base[SAMPLING](prompt_seeds_of(task.retain, OTHER_SEEDS))
            drawings = drawings_of(task.retain)
            self.referred[task.name] = {
                name: alexnet_features(self.lpips, pictures).unflatten(0, (len(task.retain), -1))
                for name, pictures in (("frechet other seeds", others), ("frechet drawings", drawings))
            }
        return self.referred[task.name]

    def cost(self, task: Task, contender: Contender, setting: dict[str, float]) -> dict[str, Any]:
        """What unlearning takes from nothing: the bank and Fisher information are made anew."""
        self.banks.clear()
        self.worded.clear()
        fisher_cache.clear()
        self.calls = 0
        with peak_memory() as peak:
            began = time.monotonic()
            self.made(task, contender, setting, 0)
            seconds = time.monotonic() - began
        return {"seconds": seconds, "network calls": self.calls, **peak}

    def unlearned(self, task: Task, contender: Contender, setting: dict[str, float], seed: int) -> UnlearningPatch:
        """The patch of one training seed, made once."""
        key = training_key(task, contender, setting, seed)
        if key not in self.patches:
            self.patches[key] = self.made(task, contender, setting, seed)
        return self.patches[key]

    def made(self, task: Task, contender: Contender, setting: dict[str, float], seed: int) -> UnlearningPatch:
        """The patch of one training seed."""
        if contender.trains:
            return self.train(task, contender, setting, seed)
        return self.solve(task, contender, setting)

    def measure(self, task: Task, base: Draw, after: Draw) -> Measured:
        """Every figure but the costs."""
        plan = Plan.of(task.retain, task.forget, SEEDS[0], len(SEEDS), task.forget_seeds)
        retention = measure(base, after, Comparison(self.lpips, plan, self.judge), {}, self.base_again)
        return Measured.of(retention, measure_quality(base, after, Networks(self.lpips, self.clip), plan, {}))

    def point(self, task: Task, patch: UnlearningPatch, strength: float) -> dict[str, float]:
        """The trade-off at a patch strength, on the search's pictures."""
        return {
            "strength": strength,
            "ua": self.forgotten(task, self.patched(patch, SEARCH_SAMPLING, strength)),
            "integrity": self.moved(task, patch, strength),
        }

    def scale(self) -> dict[str, float]:
        """What LPIPS gives for two seeds of a prompt, and for two prompts, both of the base."""
        prompts = every_prompt()
        first = self.base[SAMPLING]([(prompt, 1000) for prompt in prompts])
        second = self.base[SAMPLING]([(prompt, 1001) for prompt in prompts])
        return {
            "another seed": self.lpips.distance(first, second).mean().item(),
            "another prompt": self.lpips.distance(first, first.roll(len(first) // 2, 0)).mean().item(),
        }

    def patched(self, patch: UnlearningPatch, sampling: Sampling, strength: float = 1.0) -> Draw:
        """Draws with a patch on the base."""

        def drawing(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
            with self.model.patched(patch, strength):
                return draw(self.model, prompt_seeds, sampling)

        return drawing

    def trained(self, sampling: Sampling) -> Draw:
        """Draws with the model as it is in training."""
        return lambda prompt_seeds: draw(self.model, prompt_seeds, sampling)

    def count_call(self, *_: Any) -> None:
        """A hook of the network."""
        self.calls += 1


def settings_for(task: Task, contender: Contender, setting: Mapping[str, float], seed: int) -> Settings:
    """Of a row, for as many forget prompts as the task has."""
    return settings_of(contender, setting, seed, len(task.prompts.forget))


def training_key(task: Task, contender: Contender, setting: dict[str, float], seed: int) -> str:
    """What decides the patch."""
    return repr((task.name, contender.name, setting, seed))
