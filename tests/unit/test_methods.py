"""Every method through the same tests, on the shipped model in the diffusers host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unlearning_core.bank import forget_runs, retain_runs, sample_trajectories
from unlearning_core.hosts.diffusers import DiffusersModel
from unlearning_core.methods import METHODS, GradientMethod
from unlearning_core.methods.esd import Esd
from unlearning_core.metrics.forgetting import accuracies
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.model import noise_prediction
from unlearning_core.patch import UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.sampling import Sampling, draw
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.tasks import object_task
from unlearning_core.train import Progress, Settings, unlearn

MODEL = Path(__file__).parents[2] / "unlearning_core" / "tiny" / "model"
SAMPLING = Sampling(steps=15, cfg=3.0, width=128, height=128)
TASK = object_task()


@dataclass(frozen=True)
class Row:
    """One method of the matrix: how strongly to train, and what that may cost."""

    learning_rate: float
    most_integrity: float  # LPIPS


MATRIX = {
    "ovw": Row(2e-3, 0.10),
    "esd": Row(2e-3, 0.40),
}


def test_matrix_has_every_method() -> None:
    assert MATRIX.keys() == METHODS.keys()


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return DiffusersModel.load(MODEL)


def make(method: str) -> GradientMethod:
    return METHODS[method]()


def short(method: str, **changes: object) -> Settings:
    """Three steps on two trajectories of three steps."""
    short = {"steps": 3, "runs": 2, "run_steps": 3, "learning_rate": 1e-3, "weights": METHODS[method].weights}
    return Settings(**{**short, "width": 128, "height": 128, **changes})  # type: ignore[arg-type]


PROMPTS = Prompts(("a cat face",), ("a dog face",), ("a car",))


@pytest.mark.parametrize("method", METHODS)
def test_forgets_and_retains(model: DiffusersModel, method: str) -> None:
    row = MATRIX[method]
    settings = Settings(
        steps=80, learning_rate=row.learning_rate, width=128, height=128, weights=METHODS[method].weights
    )
    patch = unlearn(model, make(method), TASK.prompts, settings)
    retain = [(prompt, 7) for prompt in TASK.retain[:12]]
    forget = [(prompt, seed) for prompt in TASK.forget for seed in range(4)]
    base = draw(model, retain, SAMPLING)
    with model.patched(patch):
        after = draw(model, retain + forget, SAMPLING)
    integrity = Lpips("alex").distance(base, after[:12]).mean().item()
    judge = Judge.load(MODEL / "judge.safetensors")
    shown = accuracies(judge, after[12:], [prompt for prompt, _ in forget], TASK.forget)
    assert shown.ua is not None and shown.ua >= 0.9
    assert integrity <= row.most_integrity


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_file_and_base_untouched(model: DiffusersModel, tmp_path: Path, method: str, rank: int) -> None:
    before = {name: weight.clone() for name, weight in model.weights().items()}
    for name, seed in (("first", 0), ("second", 0), ("other", 1)):
        patch = unlearn(model, make(method), PROMPTS, short(method, rank=rank, seed=seed))
        patch.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    loaded = [UnlearningPatch.load(tmp_path / name).tensors for name in ("first", "other")]
    assert any(not torch.equal(loaded[0][key], loaded[1][key]) for key in loaded[0])
    after = model.weights()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_training_leaves_the_base(model: DiffusersModel, method: str) -> None:
    before = {name: weight.clone() for name, weight in model.weights().items()}

    def interrupt(progress: Progress) -> None:
        if progress.loss is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unlearn(model, make(method), PROMPTS, short(method), interrupt)
    after = model.weights()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_progress_counts_to_its_total(model: DiffusersModel) -> None:
    seen: list[Progress] = []
    unlearn(model, make("ovw"), PROMPTS, short("ovw"), seen.append)
    assert [progress.done for progress in seen] == list(range(1, seen[-1].total + 1))
    assert [progress.loss is not None for progress in seen[-4:]] == [False, True, True, True]


def test_too_high_a_learning_rate_is_named(model: DiffusersModel) -> None:
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step .*; lower the learning rate"):
        unlearn(model, make("ovw"), PROMPTS, short("ovw", steps=50, learning_rate=1.0, weights="all"))


def test_objectives_follow_their_equations(model: DiffusersModel) -> None:
    runs = forget_runs(PROMPTS.pairs, 2, 0, follow_overwrite=True)
    batch = sample_trajectories(model, runs, 128, 128, steps=3).pick(4, torch.Generator().manual_seed(0))
    e = torch.randn_like(batch.x)

    def predicted(prompt: str) -> Tensor:
        with torch.no_grad():
            return noise_prediction(model, batch.x, batch.sigma, model.encode([prompt] * len(batch)))

    cat, dog, empty = (predicted(prompt) for prompt in ("a cat face", "a dog face", ""))
    esd = Esd(eta=2.0)
    torch.testing.assert_close(make("ovw").forget_loss(e, batch), F.mse_loss(e, dog), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        esd.forget_loss(e, batch), F.mse_loss(e, empty - 2 * (cat - empty)), rtol=1e-4, atol=1e-6
    )


def test_trajectories_are_the_base_models_own(model: DiffusersModel) -> None:
    """The last latent, one Euler step on, is what `draw` decodes."""
    [run] = retain_runs(["a car"], 1, seed=5)
    kept = sample_trajectories(model, [run], 128, 128, steps=6, cfg=3.0)
    e = kept.e_uncond + 3.0 * (kept.e_cond - kept.e_uncond)
    latent = kept.x[:, -1] - kept.sigma[-1] * e[:, -1]
    picture = draw(model, [("a car", 5)], Sampling(steps=6, cfg=3.0, width=128, height=128))
    torch.testing.assert_close(model.decode(latent), picture, rtol=0, atol=1e-4)


def test_forget_runs_follow_both_prompts_with_the_same_seeds() -> None:
    pairs: Sequence[tuple[str, str]] = [("a", "x"), ("b", "y")]
    runs = forget_runs(pairs, 6, 10, follow_overwrite=True)
    assert [(run.prompt, run.guide, run.seed) for run in runs] == [
        ("a", "a", 10),
        ("a", "x", 10),
        ("b", "b", 11),
        ("b", "y", 11),
        ("a", "a", 12),
        ("a", "x", 12),
    ]
    assert len(forget_runs(pairs, 1, 0, follow_overwrite=False)) == 2
