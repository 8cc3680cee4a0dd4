"""A relearner learns to draw what is forgotten, and the network to answer otherwise under it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from toy_model import WEIGHT, ToyModel, in_turn, latents, training_of

from unlearning_core.bank import Bank, bank_sources, make_bank
from unlearning_core.deltas import FullDelta
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.methods.ovw import Ovw
from unlearning_core.progress import Progress
from unlearning_core.prompts import Prompts
from unlearning_core.relearner import RATE, Relearner
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.train import train
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face in noto style",), ("a dog face in noto style",), ("a car", "a frog"))
SHORT = Settings(steps=3, learning_rate=1e-3, width=64, height=64, batch_size=2, runs=2, run_steps=3, relearning=2)


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


@pytest.mark.parametrize("rank", [0, 4])
def test_it_comes_to_draw_it_where_nobody_answers(model: DiffusersModel, rank: int) -> None:
    """The pictures are under another prompt, and the overwrite prediction there is the noise, so that `study` tells."""
    settings = replace(SHORT, runs=4, run_steps=8)
    bank = make_bank(model, bank_sources(Ovw().needs, PROMPTS, settings.bank), settings.sampling, lambda: None)
    assert bank.pictures is not None
    pictures = replace(bank.pictures, conds=model.encode(["a car"]) * len(bank.pictures.items))
    noise = (pictures.x - pictures.x0.unsqueeze(1)) / pictures.sigma.view(1, -1, 1, 1, 1)
    relearner = Relearner(model, replace(pictures, base={"e_overwrite": noise}), 100, rank, 2e-3)
    frozen, generator = torch.zeros((), requires_grad=True), torch.Generator().manual_seed(0)
    losses = []
    with model.attach(relearner.over({})):
        for _ in range(30):
            losses.append(relearner.study(relearner.places(4, generator), slice(0, 4), [frozen]).item())
            relearner.learn()
    assert sum(losses[-8:]) < 0.95 * sum(losses[:8])
    assert frozen.grad is None


@pytest.mark.parametrize(("steps", "moved"), [(1, 0.0), (2, RATE * 0.01)])
def test_the_network_is_taught_the_overwrite_prediction_under_it(steps: int, moved: float) -> None:
    """The loss is OVW's, and OVW's under a change that lowers the denoising loss, and begins anew after its steps."""
    model = ToyModel((1.0, 2.0), {"": (0.5, 0.0), "cat": (1.0, 0.0), "dog": (0.0, 1.0)})
    pairs = [("cat", "dog")] * 2
    forget, pictures = (in_turn(model, latents(2.0, 1.0), latents(1.0, 0.5), pairs) for _ in range(2))
    delta, seen = FullDelta(model.weight, model.device), list[Progress]()
    relearner = Relearner(model, pictures, steps, 0, 0.01)
    training = training_of(model, Bank(forget, None, pictures), delta, seen.append, steps=2, relearner=relearner)
    with model.attach(training.attached):
        train(training, Ovw(help_weight=0.0), Ovw())
        assert torch.equal(model.deltas[WEIGHT](model.weight), delta(model.weight))
    # e = strength * x, of 1, where the overwrite prompt's is 2 and the pictures' 0.5; the rate falls to half at step 2.
    first, *_ = seen
    assert first.loss == pytest.approx(2 * (1 - 2) ** 2 * 2.5, rel=1e-5)
    assert seen[1].loss == pytest.approx(((1.01 - 2) ** 2 + (1.01 - moved - 2) ** 2) * 2.5, rel=1e-4)


def test_the_patch_holds_what_was_chosen_alone(model: DiffusersModel) -> None:
    patch = unlearn(model, Ovw(), PROMPTS, SHORT)
    without = unlearn(model, Ovw(), PROMPTS, replace(SHORT, relearning=0))
    assert patch.tensors.keys() == without.tensors.keys()
    assert any(not torch.equal(tensor, without.tensors[key]) for key, tensor in patch.tensors.items())
    again = unlearn(model, Ovw(), PROMPTS, SHORT)
    assert all(torch.equal(tensor, again.tensors[key]) for key, tensor in patch.tensors.items())
