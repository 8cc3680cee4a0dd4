"""Every method through the same tests, on the shipped model in the diffusers host."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.tasks import object_task
from unlearning_core.bank import (
    UserLatents,
    bank_sources,
    forget_items,
    items_at_once,
    make_bank,
    retain_items,
    sample_trajectories,
)
from unlearning_core.fingerprint import Fingerprint
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.kept import KeepingModel, KeptPredictions
from unlearning_core.methods import METHODS, GradientMethod, Method, groups, name_of
from unlearning_core.methods.base import Training
from unlearning_core.methods.nullspace import NullSpace
from unlearning_core.methods.ovw import Ovw
from unlearning_core.methods.sa import Sa, _key, fisher_information
from unlearning_core.methods.saddle import Saddle
from unlearning_core.methods.salun import Salun
from unlearning_core.methods.uce import Uce
from unlearning_core.metrics.forgetting import accuracies
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.model import noise_prediction
from unlearning_core.patch import UnlearningPatch
from unlearning_core.progress import TRAINING, Enough, Progress, Reporter
from unlearning_core.prompts import Prompts
from unlearning_core.sampling import Sampling
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.world import CONCEPTS, STYLES, prompt
from unlearning_core.unlearn import new_deltas, new_training, unlearn

SAMPLING = Sampling(steps=15, cfg=3.0, width=128, height=128)
TASK = object_task()
RETAIN = [(prompt, 7) for prompt in TASK.retain[:12]]


@dataclass(frozen=True)
class Row:
    """One method of the matrix: a setting that forgets, and what it may cost."""

    most_integrity: float  # LPIPS
    options: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 1e-3
    steps: int = 60


MATRIX = {
    "ovw": Row(0.10),
    "saddle": Row(0.10, {"margin": 0.5}),
    "esd": Row(0.40, steps=100),
    "salun": Row(0.25),
    "sa": Row(0.25),
    "ca": Row(0.30),
    "uce": Row(0.05),
    "nullspace": Row(0.06, {"tolerance": 1e-3, "ridge": 0.1}),
}


def test_matrix_has_every_method() -> None:
    assert MATRIX.keys() == METHODS.keys()


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


@pytest.fixture(scope="module")
def keeping(model: DiffusersModel) -> KeepingModel:
    """The model, sampling each trajectory once for all tests; what it keeps are the same numbers."""
    return KeepingModel(model, "shipped", KeptPredictions())


@pytest.fixture(scope="module")
def retained(model: DiffusersModel) -> Tensor:
    """The base's pictures of retain prompts."""
    return draw(model, RETAIN, SAMPLING)


def make(method: str) -> Method:
    return METHODS[method](**MATRIX[method].options)


def short(method: str, **changes: object) -> Settings:
    """Three steps on two trajectories of three steps."""
    short = {"steps": 3, "runs": 2, "run_steps": 3, "learning_rate": 1e-3, "weights": METHODS[method].weights}
    return Settings(**{**short, "width": 128, "height": 128, **changes})  # type: ignore[arg-type]


def no_report() -> None:
    """For a bank whose progress nobody follows."""


PROMPTS = Prompts(("a cat face",), ("a dog face",), ("a car",))


@pytest.mark.parametrize("method", METHODS)
def test_forgets_and_retains(model: DiffusersModel, keeping: KeepingModel, retained: Tensor, method: str) -> None:
    row = MATRIX[method]
    settings = short(method, steps=row.steps, learning_rate=row.learning_rate, runs=16, run_steps=20)
    base = keeping if issubclass(METHODS[method], GradientMethod) else model
    patch = unlearn(base, make(method), TASK.prompts, settings)
    forget = [(prompt, seed) for prompt in TASK.forget for seed in range(4)]
    with model.patched(patch):
        after = draw(model, RETAIN + forget, SAMPLING)
    integrity = Lpips("alex").distance(retained, after[: len(RETAIN)]).mean().item()
    judge = Judge.load(MODEL / "judge.safetensors")
    shown = accuracies(judge, after[len(RETAIN) :], [prompt for prompt, _ in forget], TASK.forget)
    assert shown.ua is not None and shown.ua >= 0.9
    assert integrity <= row.most_integrity


@pytest.mark.parametrize(
    ("method", "rank"), [(name, rank) for name, kind in METHODS.items() for rank in ((0, 2) if kind.low_rank else (0,))]
)
def test_same_seed_same_file_and_base_untouched(model: DiffusersModel, tmp_path: Path, method: str, rank: int) -> None:
    before = {name: weight.clone() for name, weight in model.weights().items()}
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        patch = unlearn(model, make(method), PROMPTS, short(method, rank=rank, seed=seed))
        patch.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    loaded = [UnlearningPatch.load(tmp_path / name).tensors for name in ("first", "other")]
    random = issubclass(METHODS[method], GradientMethod)
    assert random == any(not torch.equal(loaded[0][key], loaded[1][key]) for key in loaded[0])
    after = model.weights()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_training_leaves_the_base(model: DiffusersModel, method: str) -> None:
    before = {name: weight.clone() for name, weight in model.weights().items()}

    def interrupt(progress: Progress) -> None:
        if progress.done == progress.total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unlearn(model, make(method), PROMPTS, short(method), interrupt)
    after = model.weights()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_progress_counts_to_its_total(model: DiffusersModel, method: str) -> None:
    seen: list[Progress] = []
    unlearn(model, make(method), PROMPTS, short(method), seen.append)
    done = [progress.done for progress in seen if progress.step]
    assert done == sorted(set(done))
    assert done[-1] == seen[-1].total
    if issubclass(METHODS[method], GradientMethod):
        assert [progress.loss is not None for progress in seen[-4:]] == [False, True, True, True]


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if not kind.low_rank])
def test_rank_that_a_method_cannot_use(model: DiffusersModel, method: str) -> None:
    with pytest.raises(ValueError, match="set rank to 0"):
        unlearn(model, make(method), PROMPTS, short(method, rank=4))


@pytest.mark.parametrize("method", groups.closed_forms())
@pytest.mark.parametrize("weights", ["cross_attention", "attention", "not_cross_attention", "all"])
def test_weights_that_a_closed_form_cannot_use(model: DiffusersModel, method: str, weights: str) -> None:
    with pytest.raises(ValueError, match=rf"weights: {re.escape(METHODS[method].label)} needs text_projections"):
        unlearn(model, make(method), PROMPTS, short(method, weights=weights))


@pytest.mark.parametrize("method", METHODS)
def test_methods_that_ignore_the_overwrite_prompt(model: DiffusersModel, method: str) -> None:
    """Other than by holding it: both overwrite prompts are held in both runs."""
    held = ("a dog face", "a house")
    first, second = (
        unlearn(model, make(method), Prompts(PROMPTS.forget, (overwrite,), held), short(method)).tensors
        for overwrite in held
    )
    same = all(torch.equal(first[key], second[key]) for key in first)
    assert same == (method in groups.ignoring_overwrite()), f"uses_overwrite of {METHODS[method].__name__} says other"


def test_halves_of_unequal_sizes_are_refused(model: DiffusersModel) -> None:
    """Where a method joins them: the user's latents with the base's own, or with the user's."""
    small, large = (model.noise([0], side, side) for side in (64, 128))
    for latents in (UserLatents(forget=small), UserLatents(retain=small), UserLatents(forget=small, retain=large)):
        with pytest.raises(ValueError, match="latents: those to forget are"):
            unlearn(model, make("ovw"), PROMPTS, short("ovw"), latents=latents)
    unlearn(model, make("esd"), PROMPTS, short("esd"), latents=UserLatents(forget=small))


def test_seeds_go_round(model: DiffusersModel) -> None:
    last = 2**64 - 1
    assert [item.seed for item in retain_items(["a"], 2, last)] == [last, 0]
    assert [item.seed for item in forget_items([("a", "b")], 2, last, guides=(0,))] == [last, 0]
    latents = model.noise([0, 1], 128, 128)
    sources = bank_sources(Ovw().needs, PROMPTS, short("ovw", seed=last).bank, UserLatents(forget=latents))
    assert [item.seed for item in sources["forget"].items] == [last, 0]


def test_large_pictures_are_sampled_in_smaller_batches() -> None:
    assert [items_at_once(side, side) for side in (128, 512, 768, 1024, 4096)] == [16, 16, 7, 4, 1]


def test_fisher_information_is_estimated_again_for_other_latents(model: DiffusersModel) -> None:
    """With the same pictures, but another number of noise levels or another text."""
    latents = UserLatents(retain=model.noise([0], 128, 128))

    def key(prompt: str = "a car", **changes: object) -> str:
        settings, prompts = short("sa", **changes), Prompts(("a cat face",), ("a dog face",), (prompt,))
        bank = make_bank(model, bank_sources(Sa().needs, prompts, settings.bank, latents), settings.sampling, no_report)
        return _key(replace(training(model, Sa()), bank=bank), samples=4)

    assert key() == key(batch_size=3)
    assert len({key(), key(run_steps=4), key("a house")}) == 3


def test_too_high_a_learning_rate_is_named(model: DiffusersModel) -> None:
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step .*; lower the learning rate"):
        unlearn(model, make("ovw"), PROMPTS, short("ovw", steps=50, learning_rate=1.0, weights="all"))


def test_a_run_that_is_ended_early_is_the_shorter_run(model: DiffusersModel, tmp_path: Path) -> None:
    def after_two_steps(progress: Progress) -> None:
        if (progress.phase, progress.step) == (TRAINING, 2):
            raise Enough

    ended = unlearn(model, make("saddle"), PROMPTS, short("saddle", steps=5), after_two_steps)
    shorter = unlearn(model, make("saddle"), PROMPTS, short("saddle", steps=2))
    assert ended.tensors.keys() == shorter.tensors.keys()
    assert all(torch.equal(ended.tensors[key], shorter.tensors[key]) for key in ended.tensors)
    assert (ended.record.stopped, shorter.record.stopped) == (2, None)
    ended.save(tmp_path / "ended.safetensors")
    assert UnlearningPatch.load(tmp_path / "ended.safetensors").record == ended.record


def training(model: DiffusersModel, method: GradientMethod) -> Training:
    """What `method` sees before its first step under `short`."""
    settings = short(name_of(method))
    bank = make_bank(model, bank_sources(method.needs, PROMPTS, settings.bank), settings.sampling, no_report)
    base, report = Fingerprint.of(model.weights()), Reporter(lambda progress: None, 0)
    return new_training(model, bank, new_deltas(model, settings), settings, base, report)


def test_salun_changes_nothing_outside_its_mask(model: DiffusersModel) -> None:
    method = Salun(saliency=0.3)
    masks = method.masks(training(model, method))
    changes = unlearn(model, method, PROMPTS, short("salun")).changes()
    assert masks.keys() == changes.keys()
    assert all(mask.dtype == torch.bool for mask in masks.values())
    total = sum(mask.numel() for mask in masks.values())
    assert sum(mask.sum().item() for mask in masks.values()) == pytest.approx(0.3 * total, abs=1)
    for name, mask in masks.items():
        assert (changes[name][~mask] == 0).all()
        assert (changes[name][mask] != 0).any() == mask.any()


def test_sa_with_a_huge_penalty_stays(model: DiffusersModel) -> None:
    def furthest(penalty: float) -> float:
        patch = unlearn(model, Sa(penalty=penalty, fisher_samples=16), PROMPTS, short("sa", steps=25))
        return max(change.abs().max().item() for change in patch.changes().values())

    learning_rate = 1e-3
    assert furthest(0.0) > 8 * learning_rate
    assert furthest(1e20) < 1.5 * learning_rate  # Adam's first step is as long as the rate, whatever the penalty


def test_fisher_information_is_the_mean_squared_gradient(model: DiffusersModel) -> None:
    run = training(model, Sa(fisher_samples=2))
    name = next(iter(run.deltas))
    generator = torch.Generator().manual_seed(2)
    weight = run.deltas[name].get_parameter("diff")
    squares = torch.zeros_like(weight)
    assert run.bank.retain is not None
    with model.attach(run.deltas):
        for _ in range(2):
            one = run.bank.retain.sample(1, generator)
            F.mse_loss(noise_prediction(model, one.x, one.sigma, one.conds), one.noise).backward()
            assert weight.grad is not None
            squares += weight.grad**2 / 2
            weight.grad = None
    torch.testing.assert_close(fisher_information(run, 2)[name], squares)


def test_saddle_meets_its_constraint(keeping: KeepingModel) -> None:
    seen: list[Progress] = []
    settings = short("saddle", steps=200, runs=16, run_steps=20, batch_size=8)
    unlearn(keeping, Saddle(help_weight=5.0, margin=0.5, ascent=0.1), TASK.prompts, settings, seen.append)
    tail = [progress.figures for progress in seen[-100:]]  # s of 8 latents scatters
    multipliers = torch.tensor([figures["multiplier"] for figures in tail])
    assert sum(figures["s"] for figures in tail) / len(tail) == pytest.approx(-0.5, abs=0.15)
    assert multipliers.std() < 0.25 * multipliers.mean()
    assert multipliers.max() < Saddle().most


def test_null_space_edit_needs_room(model: DiffusersModel) -> None:
    with pytest.raises(ValueError, match="use fewer retain prompts, or raise tolerance"):
        unlearn(model, NullSpace(tolerance=1e-7), TASK.prompts, short("nullspace"))


def test_many_concepts_at_once(model: DiffusersModel) -> None:
    """Twenty things become the other four."""
    *forgotten, first, second, third, fourth = CONCEPTS
    targets = [(first, second, third, fourth)[index % 4] for index in range(len(forgotten))]
    pairs = [(style, pair) for pair in zip(forgotten, targets, strict=True) for style in (None, *STYLES)]
    forget = tuple(prompt(old, style) for style, (old, _) in pairs)
    overwrite = tuple(prompt(new, style) for style, (_, new) in pairs)
    kept = tuple(prompt(concept) for concept in (first, second, third, fourth))
    patch = unlearn(model, Uce(), Prompts(forget, overwrite, kept), short("uce"))
    judge = Judge.load(MODEL / "judge.safetensors")
    for concept in forgotten:
        asked = [prompt(concept, style) for style in STYLES]
        with model.patched(patch):
            pictures = draw(model, [(text, 3) for text in asked], SAMPLING)
        assert accuracies(judge, pictures, asked, asked).ua == 1


def test_forgetting_a_second_concept_keeps_the_first_forgotten(model: DiffusersModel) -> None:
    def ua(concept: str) -> float:
        asked = [prompt(concept, style) for style in STYLES]
        prompt_seeds = [(text, seed) for text in asked for seed in range(4)]
        verdicts = accuracies(judge, draw(model, prompt_seeds, SAMPLING), [text for text, _ in prompt_seeds], asked)
        assert verdicts.ua is not None
        return verdicts.ua

    judge = Judge.load(MODEL / "judge.safetensors")
    settings = short("ovw", steps=50, runs=16, run_steps=10)
    tasks = object_task("cat face", "dog face").prompts, object_task("car", "house").prompts
    first, second = (replace(prompts, retain=prompts.retain[:8]) for prompts in tasks)
    cat = unlearn(model, Ovw(), first, settings)
    with model.patched(cat):
        before = ua("cat face")
        car = unlearn(model, Ovw(), second, settings)
        car.check_base(model.fingerprint())
        with model.patched(car):
            assert ua("cat face") >= before - 0.05
            assert ua("car") >= 0.9
    with pytest.raises(ValueError, match="patches were on it that are missing here"):
        car.check_base(model.fingerprint())


def test_own_pictures_take_the_place_of_the_bases(model: DiffusersModel) -> None:
    pictures = draw(model, [("a cat face", seed) for seed in range(3)], SAMPLING)
    latents = model.latents(pictures)
    method = Ovw()
    settings = short("ovw")
    sources = bank_sources(method.needs, PROMPTS, settings.bank, UserLatents(forget=latents))
    bank = make_bank(model, sources, settings.sampling, no_report)
    assert bank.forget.x.shape == (3, 3, *latents.shape[1:])
    torch.testing.assert_close(bank.forget.x0, latents)
    noise = (bank.forget.x[:, 0] - latents) / bank.forget.sigma[0]
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    patch = unlearn(model, method, PROMPTS, settings, latents=UserLatents(forget=latents, retain=latents))
    assert any(change.any() for change in patch.changes().values())
    with pytest.raises(ValueError, match="forget pictures: 3 for 2 forget prompts"):
        two = Prompts(("a cat face", "a cat face in noto style"), ("",), ("a car",))
        unlearn(model, method, two, settings, latents=UserLatents(forget=latents))


def test_trajectories_are_the_base_models_own(model: DiffusersModel) -> None:
    """The last latent, one Euler step on, is what `draw` decodes."""
    sampling = Sampling(steps=6, cfg=3.0, width=128, height=128)
    kept = sample_trajectories(model, retain_items(["a car"], 1, seed=5), sampling)
    e = kept.e_uncond + 3.0 * (kept.e_cond - kept.e_uncond)
    latent = kept.x[:, -1] - kept.sigma[-1] * e[:, -1]
    picture = draw(model, [("a car", 5)], sampling)
    torch.testing.assert_close(model.decode(latent), picture, rtol=0, atol=1e-4)


def test_forget_items_follow_both_prompts_with_the_same_seeds() -> None:
    pairs: Sequence[tuple[str, str]] = [("a", "x"), ("b", "y")]
    items = forget_items(pairs, 6, 10, guides=(0, 1))
    assert [(item.prompt, item.guide, item.seed) for item in items] == [
        ("a", "a", 10),
        ("a", "x", 10),
        ("b", "b", 11),
        ("b", "y", 11),
        ("a", "a", 12),
        ("a", "x", 12),
    ]
    assert len(forget_items(pairs, 1, 0, guides=(0,))) == 2
