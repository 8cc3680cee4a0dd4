"""Adversaries learn to draw what is forgotten, and the network to answer them, in one pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from toy_model import ToyModel, in_turn, latents, training_of

from unlearning_core.adversaries import RATE, Adversaries
from unlearning_core.bank import Bank, bank_sources, make_bank
from unlearning_core.deltas import FullDelta
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.methods import METHODS
from unlearning_core.methods.base import GradientMethod
from unlearning_core.methods.ovw import Ovw
from unlearning_core.model import noise_prediction
from unlearning_core.progress import Progress
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.train import train
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face in noto style",), ("a dog face in noto style",), ("a car", "a frog"))
SHORT = Settings(
    steps=3, learning_rate=1e-3, width=128, height=128, batch_size=2, runs=2, run_steps=3, adversaries=3, retain_ratio=2
)


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


def bank_of(model: DiffusersModel, method: str, settings: Settings = SHORT) -> Bank:
    kind = METHODS[method]()
    assert isinstance(kind, GradientMethod)
    sources = bank_sources(kind.needs, PROMPTS, settings.bank)
    return make_bank(model, sources, settings.sampling, lambda: None)


@pytest.mark.parametrize("method", ["ovw", "ca"])  # forget latents of the forget prompt, and of the overwrite prompt
def test_they_learn_from_pictures_of_what_is_forgotten(model: DiffusersModel, method: str) -> None:
    pictures = bank_of(model, method).pictures
    assert pictures is not None
    assert {item.guide for item in pictures.items} == {PROMPTS.forget[0]}
    assert [*pictures.base] == ["e_overwrite"]


def test_pictures_that_are_there_are_not_drawn_again(model: DiffusersModel) -> None:
    bank = bank_of(model, "esd")
    assert bank.pictures is not None
    assert torch.equal(bank.pictures.x0, bank.forget.x0)


def test_an_adversary_comes_to_draw_it_where_nobody_answers(model: DiffusersModel) -> None:
    """The network is frozen; the denoising loss at the concept's pictures falls below that of where it began."""
    pictures = bank_of(model, "esd", replace(SHORT, runs=4, run_steps=8)).pictures
    assert pictures is not None
    pool = Adversaries(model, pictures, ["a car"], count=1, seed=0)
    generator = torch.Generator().manual_seed(0)
    losses = []
    with model.attach({}):
        for _ in range(40):
            chosen = pool.chosen(4, generator)
            challenge = pool.challenge(chosen, slice(0, 4))
            e = noise_prediction(model, challenge.batch.x, challenge.batch.sigma, challenge.batch.conds)
            pool.study(challenge, e)
            pool.learn(chosen)
            losses.append(F.mse_loss(e, challenge.batch.noise).item())
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def two_tokens() -> ToyModel:
    """Each prompt has the same token twice."""
    model = ToyModel((1.0, 2.0), {"": (0.5, 0.0), "cat": (1.0, 0.0), "dog": (0.0, 1.0)})
    model.tokens = {prompt: token.repeat(2, 1) for prompt, token in model.tokens.items()}
    return model


def test_each_meets_as_many_pictures() -> None:
    model = two_tokens()
    pictures = in_turn(model, latents(2.0, 1.0), latents(1.0, 0.5), [("cat", "dog")] * 2)
    pool = Adversaries(model, pictures, ["cat", ""], count=3, seed=0)
    met = [pool.chosen(6, torch.Generator().manual_seed(0)) for _ in range(2)]
    assert met[0].adversaries == met[1].adversaries
    assert sorted(met[0].adversaries) == [0, 0, 1, 1, 2, 2]
    halves = [pool.challenge(met[0], rows).adversaries for rows in (slice(0, 2), slice(2, 6))]
    assert halves[0] + halves[1] == met[0].adversaries


def asked_texts(pool: Adversaries) -> list[torch.Tensor]:
    """The texts of a batch of one."""
    return pool.challenge(pool.chosen(1, torch.Generator()), slice(0, 1)).batch.conds


def test_the_network_is_taught_the_overwrite_prediction() -> None:
    """The loss is OVW's and ||e(x_a, c_a) - e0(x_a, c_o)||^2; no adversary's gradient reaches the weights."""
    model = two_tokens()
    pairs = [("cat", "dog")] * 2
    forget, pictures = (in_turn(model, latents(2.0, 1.0), latents(1.0, 0.5), pairs) for _ in range(2))
    delta, seen = FullDelta(model.weight, model.device), list[Progress]()
    pool = Adversaries(model, pictures, ["cat"], count=1, seed=0)
    before = [cond.clone() for cond in asked_texts(pool)]
    training = training_of(model, Bank(forget, None, pictures), delta, seen.append, adversaries=pool)
    with model.attach(training.deltas):
        train(training, Ovw(help_weight=0.0), Ovw())
    asked = before[0].mean(0) @ model.weight  # e = strength * x; the overwrite prompt's strength is 2
    expected = ((1 - 2) ** 2 + (asked.item() - 2) ** 2) * (2.0**2 + 1.0**2) / 2
    assert seen[-1].loss == pytest.approx(expected, rel=1e-5)
    moved = (asked_texts(pool)[0] - before[0]).abs().max()
    assert moved.item() == pytest.approx(RATE * 0.5**0.5, rel=1e-3)  # and theirs: (1, 0) has a mean square of 1 / 2
    assert delta.diff.detach().abs().max().item() == pytest.approx(0.01, rel=1e-3)  # Adam's first step


def test_the_same_seed_gives_the_same_patch(model: DiffusersModel) -> None:
    first, second = (unlearn(model, Ovw(), PROMPTS, SHORT) for _ in range(2))
    assert all(torch.equal(tensor, second.tensors[key]) for key, tensor in first.tensors.items())
    without = unlearn(model, Ovw(), PROMPTS, replace(SHORT, adversaries=0))
    assert any(not torch.equal(tensor, without.tensors[key]) for key, tensor in first.tensors.items())


def test_a_model_without_tokens_is_refused() -> None:
    model = ToyModel((1.0, 2.0), {"cat": (1.0, 0.0), "dog": (0.0, 1.0), "": (0.5, 0.0)})
    pictures = in_turn(model, latents(2.0), latents(1.0), [("cat", "dog")])
    with pytest.raises(ValueError, match="adversaries: this model reads no text of several tokens"):
        Adversaries(model, pictures, ["cat"], count=1, seed=0)
