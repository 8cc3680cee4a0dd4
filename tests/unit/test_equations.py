"""Every method computes its equation: against numbers worked out by hand, and on the shipped model.

The toy model's noise prediction is e(x, prompt) = (weight . token) * x. Where nothing else is said its weight is (1, 2)
and the tokens are those of TOKENS, so that e0 is x under the forget prompt, 2x under the overwrite prompt, x / 2 under
the empty prompt and 4x under the retain prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from toy_model import WEIGHT, InTurn, ToyModel, in_turn, latents

from unlearning_core.bank import Bank, forget_items, sample_trajectories
from unlearning_core.deltas import FullDelta
from unlearning_core.fingerprint import Fingerprint
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.methods import METHODS
from unlearning_core.methods.base import GradientMethod, Objective, Step, TextSums, Training
from unlearning_core.methods.ca import Ca
from unlearning_core.methods.esd import Esd
from unlearning_core.methods.nullspace import NullSpace
from unlearning_core.methods.ovw import Ovw
from unlearning_core.methods.sa import Sa
from unlearning_core.methods.saddle import Saddle
from unlearning_core.methods.salun import Salun
from unlearning_core.methods.uce import Uce
from unlearning_core.model import noise_prediction
from unlearning_core.progress import Progress, Reporter
from unlearning_core.prompts import Prompts, held_prompts
from unlearning_core.sampling import Sampling
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.train import train
from unlearning_core.unlearn import unlearn

CLOSED = Settings(weights="text_projections")
PROMPTS = Prompts(("a cat face",), ("a dog face",), ("a car",))
TOKENS = {"cat": (1.0, 0.0), "dog": (0.0, 1.0), "car": (2.0, 1.0), "": (0.5, 0.0)}
CAT, CAR = ("cat", "dog"), ("car", "car")  # with their overwrite prompts


class Run:
    """One training run of a method on the toy model."""

    def __init__(self, model: ToyModel, forget: InTurn, retain: InTurn | None = None) -> None:
        self.model = model
        self.delta = FullDelta(model.weight, model.device)
        self.seen: list[Progress] = []
        self.training = Training(
            model=model,
            bank=Bank(forget, retain),
            deltas={WEIGHT: self.delta},
            base=Fingerprint.of(model.weights()),
            steps=1,
            learning_rate=0.01,
            batch_size=len(forget.items),
            micro_batch=0,
            retain_ratio=1,
            generator=torch.Generator().manual_seed(0),
            report=Reporter(self.seen.append, 1),
        )

    def change(self, *values: float) -> None:
        """Makes these values what the delta adds to the weight."""
        with torch.no_grad():
            self.delta.diff.copy_(torch.tensor(values))

    def loss(self, objective: Objective) -> Tensor:
        """The loss of all latents."""
        bank, generator = self.training.bank, self.training.generator
        halves = [bank.forget, *([bank.retain] if bank.retain else [])]
        batches = [half.sample(len(half.items), generator) for half in halves]
        with self.model.attach(self.training.deltas):
            e = [noise_prediction(self.model, batch.x, batch.sigma, batch.conds) for batch in batches]
            retain = (batches[1], e[1]) if bank.retain else (None, None)
            return objective.loss(Step(batches[0], e[0], *retain))

    def gradient(self, loss: Tensor) -> Tensor:
        """By the weight."""
        [gradient] = torch.autograd.grad(loss, [self.delta.diff])
        return gradient


@pytest.fixture
def run() -> Run:
    """Forget latents 2 and 1 with noise 1 and 0.5, retain latents 1 and -1 with noise 3 and -3.5."""
    model = ToyModel((1.0, 2.0), TOKENS)
    forget = in_turn(model, latents(2, 1), latents(1, 0.5), [CAT, CAT])
    return Run(model, forget, in_turn(model, latents(1, -1), latents(3, -3.5), [CAR, CAR]))


def test_ovw(run: Run) -> None:
    run.change(2.0, 0.0)  # e(x, cat) = 3x: 6 and 3; e0(x, dog) = 2x: 4 and 2
    assert_close(run.loss(Ovw()), torch.tensor((2.0**2 + 1.0**2) / 2))


def test_esd(run: Run) -> None:
    run.change(2.0, 0.0)  # e(x, cat): 6 and 3; e0(x, cat): 2 and 1; e0(x, ""): 1 and 0.5
    targets = (1 - 2 * (2 - 1), 0.5 - 2 * (1 - 0.5))
    assert targets == (-1, -0.5)
    assert_close(run.loss(Esd(eta=2.0)), torch.tensor((7.0**2 + 3.5**2) / 2))


@pytest.mark.parametrize(("method", "loss"), [(Ovw(help_weight=4.0), 102.5), (Ovw(help_weight=0.0), 2.5)])
def test_l_help_is_added_in_training(run: Run, method: GradientMethod, loss: float) -> None:
    run.change(2.0, 1.0)  # e(x, cat) = 3x as above: 2.5; e(x, car) = 9x against e0 = 4x at 1 and -1: 25
    with run.model.attach(run.training.deltas):
        train(run.training, method, method)
    assert [progress.loss for progress in run.seen] == [pytest.approx(loss)]


def test_ca(run: Run) -> None:
    """The target is the trained model's own prediction, and no gradient comes through it."""
    objective = Ca().begin(run.training)
    run.change(0.0, 1.0)  # e(x, cat) = x: 2 and 1; e(x, dog) = 3x: 6 and 3
    loss = run.loss(objective)
    assert_close(loss, torch.tensor((4.0**2 + 2.0**2) / 2))
    # Half of 2 * (e(x, cat) - e(x, dog)) * x, summed, times cat's token. Through the target it would be (-10, 10).
    assert_close(run.gradient(loss), torch.tensor([(2 * -4.0 * 2 + 2 * -2.0 * 1) / 2, 0.0]))


def test_salun(run: Run) -> None:
    objective = Salun(retain_weight=0.5, saliency=1.0).begin(run.training)
    run.change(0.0, 1.0)  # as for CA, and e(x, car) = 5x: 5 and -5
    loss = run.loss(objective)
    assert_close(loss, torch.tensor(10.0 + 0.5 * (2.0**2 + 1.5**2) / 2))
    # CA's gradient, and half of 2 * (e - noise) * x, summed, times retain_weight and car's token.
    retain = 0.5 * (2 * 2.0 * 1 + 2 * -1.5 * -1) / 2
    assert_close(run.gradient(loss), torch.tensor([-10.0 + 2 * retain, retain]))


def test_saluns_mask() -> None:
    """The share of weights with the largest sum of gradients: what cancels between latents is not salient."""
    tokens = {"cat": (4.0, 1.0, -2.0, 0.5), "kitten": (-4.0, 1.0, -1.0, 0.0), "": (0.0, 0.0, 0.0, 0.0)}
    model = ToyModel((0.0, 0.0, 0.0, 0.0), tokens)
    run = Run(model, in_turn(model, latents(1, 1), latents(-1, -1), [("cat", ""), ("kitten", "")]))
    training = replace(run.training, batch_size=1)
    # e = 0, so that a latent's gradient is 2 * (0 - -1) * 1 * token. Four of each in turn: 8 * (0, 2, -3, 0.5).
    assert Salun(saliency=0.5).masks(training)[WEIGHT].tolist() == [False, True, True, False]
    assert Salun(saliency=0.25).masks(training)[WEIGHT].tolist() == [False, False, True, False]
    assert Salun(saliency=0.75).masks(training)[WEIGHT].tolist() == [False, True, True, True]
    Salun(saliency=0.5).begin(training)
    assert_close(run.gradient((3 * run.delta.diff).sum()), torch.tensor([0.0, 3.0, 3.0, 0.0]))


def test_sa(run: Run) -> None:
    objective = Sa(penalty=4.0, fisher_samples=2).begin(run.training)
    # Of the retain latents, e0 = 4x is 4 and -4. Gradients: 2 * (4 - 3) * 1 * (2, 1) and 2 * (-4 + 3.5) * -1 * (2, 1),
    # which is (4, 2) and (2, 1). F is the mean of their squares: (10, 2.5).
    run.change(0.5, -2.0)  # e(x, cat) = 1.5x: 3 and 1.5; e(x, car) = 3x: 3 and -3
    loss = run.loss(objective)
    surrogate, replay, moved = (2.0**2 + 1.0**2) / 2, (0.0**2 + 0.5**2) / 2, 10 * 0.5**2 + 2.5 * 2.0**2
    assert moved == 12.5
    assert_close(loss, torch.tensor(surrogate + replay + 4.0 * moved))
    assert objective.figures() == {"Fisher distance": pytest.approx(moved)}
    # Surrogate 5 * (1, 0), replay -0.5 * (2, 1), penalty 2 * 4 * F * change.
    assert_close(run.gradient(loss), torch.tensor([5.0 - 1.0 + 40.0, -0.5 - 40.0]))


SADDLE = Saddle(margin=0.5, ascent=0.5, damping=2.0, most=1.0)


def saddle_run() -> Run:
    """e0 under the forget prompt is 4 and -4, under the empty prompt half of it: g is 2 and -2, ||g||^2 is 4."""
    model = ToyModel((1.0, 2.0), TOKENS)
    return Run(model, in_turn(model, latents(4, -4), latents(0, 0), [CAT, CAT]))


def without(run: Run, share: float) -> tuple[Step, Tensor]:
    """A step where both predictions lack this share of g, so that s is 1 - share."""
    batch = run.training.bank.forget.sample(2, run.training.generator)
    e = (batch.e_cond - share * (batch.e_cond - batch.e_uncond)).requires_grad_()
    return Step(batch, e, None, None), e


def test_saddle() -> None:
    """Multiplier and smoothed s over five steps."""
    run = saddle_run()
    objective = SADDLE.begin(run.training)
    steps = (
        # share of g that is lacking, s smoothed: 0.8 of the old, which begins with 1, + 0.2 of the new
        # multiplier: + 0.5 * (smoothed + 0.5), from 0 to 1
        # loss: (multiplier + 2 * (smoothed + 0.5)) * (s + 0.5) * ||g||^2
        (0.0, 1.0, 0.75, (0.75 + 2 * 1.5) * 1.5 * 4),
        (1.0, 0.8, 1.0, (1.0 + 2 * 1.3) * 0.5 * 4),
        (5.0, -0.16, 1.0, (1.0 + 2 * 0.34) * -3.5 * 4),
        (9.0, -1.728, 0.386, (0.386 - 2 * 1.228) * -7.5 * 4),
        (9.0, -2.9824, 0.0, (0.0 - 2 * 2.4824) * -7.5 * 4),
    )
    for share, smoothed, multiplier, expected in steps:
        step, _ = without(run, share)
        assert_close(objective.loss(step), torch.tensor(expected))
        assert objective.figures() == {
            "multiplier": pytest.approx(multiplier, abs=1e-6),
            "s": pytest.approx(smoothed),
        }


def test_saddles_multiplier_has_an_upper_bound() -> None:
    run = saddle_run()
    objective = Saddle(margin=0.5, ascent=0.5, damping=2.0, most=0.3).begin(run.training)
    step, _ = without(run, 0.0)
    assert_close(objective.loss(step), torch.tensor((0.3 + 2 * 1.5) * 1.5 * 4))
    assert objective.figures()["multiplier"] == pytest.approx(0.3)


def test_saddle_pushes_the_prediction_back_along_the_concepts_direction() -> None:
    """d loss / d e = (multiplier + 2 * 1.5) * g, in the mean of two predictions."""
    run = saddle_run()
    step, e = without(run, 0.0)
    [gradient] = torch.autograd.grad(SADDLE.begin(run.training).loss(step), [e])
    assert_close(gradient, latents(3.75, -3.75))


def test_uce() -> None:
    sums = TextSums(  # forget token (1, 0), overwrite token (0, 1), retain token (1, 1)
        forget=torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double(),
        moved=torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double(),
        retain=torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double(),
    )
    weight = torch.tensor([[1.0, 2.0]]).double()
    # W* = ((1, 2) + 2 (1, 0) + 0.5 (3, 3)) (I + [[1, 0], [0, 0]] + 0.5 [[1, 1], [1, 1]])^-1
    #    = (4.5, 3.5) [[2.5, 0.5], [0.5, 1.5]]^-1 = (4.5, 3.5) [[1.5, -0.5], [-0.5, 2.5]] / 3.5 = (5, 6.5) / 3.5
    edit = weight @ Uce(ridge=1.0, retain_weight=0.5).map(sums)
    assert_close(weight + edit, torch.tensor([[5.0, 6.5]]).double() / 3.5)


def test_null_space() -> None:
    sums = TextSums(  # forget token (1, 1), overwrite token (4, 1), retain token (0, 1): N = (1, 0)^T
        forget=torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double(),
        moved=torch.tensor([[3.0, 3.0], [0.0, 0.0]]).double(),
        retain=torch.tensor([[0.0, 0.0], [0.0, 1.0]]).double(),
    )
    weight = torch.tensor([[1.0, 2.0]]).double()
    # v* - W c = 6 - 3, c^T N = 1: W* = W + 3 * 1 * (1 + 0.5)^-1 * (1, 0) = (3, 2)
    edit = weight @ NullSpace(ridge=0.5).map(sums)
    assert_close(weight + edit, torch.tensor([[3.0, 2.0]]).double())


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    """The shipped one."""
    return load(MODEL)


def test_objectives_follow_their_equations(model: DiffusersModel) -> None:
    items = forget_items(PROMPTS.pairs, 2, 0, guides=(0, 1))
    batch = sample_trajectories(model, items, Sampling(steps=3, width=128, height=128)).sample(
        4, torch.Generator().manual_seed(0)
    )
    step = Step(batch, torch.randn_like(batch.x), None, None)

    def predicted(prompt: str) -> Tensor:
        with torch.no_grad():
            return noise_prediction(model, batch.x, batch.sigma, model.encode([prompt] * len(batch)))

    def check(loss: Tensor, target: Tensor) -> None:
        torch.testing.assert_close(loss, F.mse_loss(step.e_forget, target), rtol=1e-4, atol=1e-6)

    cat, dog, empty = (predicted(prompt) for prompt in ("a cat face", "a dog face", ""))
    check(Ovw().loss(step), dog)
    check(Esd(eta=2.0).loss(step), empty - 2 * (cat - empty))


def text_tokens(model: DiffusersModel, prompts: Sequence[str]) -> dict[str, Tensor]:
    return {prompt: text.tokens.double() for prompt, text in zip(prompts, model.encode(prompts), strict=True)}


def test_uce_equals_its_equation(model: DiffusersModel) -> None:
    method = Uce(ridge=0.7, retain_weight=0.3)
    patch = unlearn(model, method, PROMPTS, CLOSED)
    tokens = text_tokens(model, [*PROMPTS.forget, *PROMPTS.overwrite, *held_prompts(PROMPTS)])
    weights = model.weights()
    for name, change in patch.changes().items():
        weight = weights[name].double()
        left, right = 0.7 * weight, 0.7 * torch.eye(weight.shape[1]).double()
        for old, new in zip(tokens["a cat face"], tokens["a dog face"], strict=True):
            left = left + torch.outer(weight @ new, old)
            right = right + torch.outer(old, old)
        for held in held_prompts(PROMPTS):
            for token in tokens[held]:
                left = left + 0.3 * torch.outer(weight @ token, token)
                right = right + 0.3 * torch.outer(token, token)
        torch.testing.assert_close(weight + change.double(), left @ torch.linalg.inv(right), rtol=1e-6, atol=1e-6)


def test_null_space_edit_leaves_the_retain_prompts(model: DiffusersModel) -> None:
    prompts = Prompts(("a cat face",), ("a dog face",), ("a car", "a house in noto style", "a fish in fluent style"))
    patch = unlearn(model, METHODS["nullspace"](), prompts, CLOSED)
    tokens = text_tokens(model, ["a cat face", *held_prompts(prompts)])
    weights = model.weights()
    for name, change in patch.changes().items():
        outputs = {prompt: tokens[prompt] @ weights[name].double().T for prompt in tokens}
        moved = {prompt: (tokens[prompt] @ change.double().T).norm() / outputs[prompt].norm() for prompt in tokens}
        assert moved.pop("a cat face") > 0.1
        assert max(moved.values()) < 1e-4
