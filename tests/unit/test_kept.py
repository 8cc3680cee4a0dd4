"""Kept predictions are the model's own, and are found again only when nothing that determines them has changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.kept import KeepingModel, KeptPredictions, content
from unlearning_core.methods import METHODS, GradientMethod
from unlearning_core.model import Cond
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face",), ("a dog face",), ("a car",))
SETTINGS = Settings(
    steps=2, learning_rate=1e-3, width=64, height=64, batch_size=2, runs=3, run_steps=3, weights="cross_attention_kv"
)
OPTIONS = {"sa": {"fisher_samples": 2}}


class Counting(KeepingModel):
    """Counts the calls that reach the model below it."""

    def __init__(self, model: DiffusersModel, identity: str = "base") -> None:
        super().__init__(model, identity, KeptPredictions(0))
        self.calls = 0

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        self.calls += not torch.is_grad_enabled() and not self._attached  # the base itself
        return super().predict_x0(x, sigma, conds)


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if issubclass(kind, GradientMethod)])
def test_a_patch_is_the_same_with_kept_predictions(model: DiffusersModel, name: str) -> None:
    method, kept = METHODS[name](**OPTIONS.get(name, {})), KeptPredictions()
    plain = unlearn(model, method, PROMPTS, SETTINGS)
    first = Counting(model)
    for run in (KeepingModel(first, "base", kept), KeepingModel(second := Counting(model), "base", kept)):
        patch = unlearn(run, method, PROMPTS, SETTINGS)
        assert patch.tensors.keys() == plain.tensors.keys()
        assert all(torch.equal(patch.tensors[key], plain.tensors[key]) for key in plain.tensors)
    assert first.calls > second.calls == 0


def test_settings_of_the_training_alone_find_the_bank_again(model: DiffusersModel) -> None:
    kept = KeptPredictions()

    def calls(identity: str = "base", prompts: Prompts = PROMPTS, **changes: Any) -> int:
        counting = Counting(model)
        settings = Settings(**{**vars(SETTINGS), **changes})
        unlearn(KeepingModel(counting, identity, kept), METHODS["ovw"](), prompts, settings)
        return counting.calls

    assert calls() > 0
    assert calls(learning_rate=2e-3) == calls(steps=3) == calls(batch_size=1) == calls(rank=2) == 0
    assert calls(prompts=Prompts(("a cat face",), ("a dog face",), ("a house",))) > 0
    for change in ({"seed": 1}, {"run_steps": 4}, {"run_cfg": 2.0}, {"width": 128}, {"identity": "another"}):
        assert calls(**change) > 0, change


def test_a_cancelled_sampling_keeps_what_it_finished(model: DiffusersModel) -> None:
    class Cancelled(Exception):
        pass

    def cancel(progress: Any) -> None:
        if progress.done == 4:
            raise Cancelled

    kept, counts = KeptPredictions(), []
    for on_progress in (cancel, lambda progress: None, lambda progress: None):
        counting = Counting(model)
        with suppress(Cancelled):
            unlearn(KeepingModel(counting, "base", kept), METHODS["ovw"](), PROMPTS, SETTINGS, on_progress)
        counts.append(counting.calls)
    assert counts[0] > 0 and counts[1] > 0 and counts[2] == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8)), max_size=30), st.integers(0, 80))
def test_the_least_recently_used_go_first(accesses: list[tuple[int, int]], limit: int) -> None:
    kept, expected, sizes = KeptPredictions(limit), list[str](), dict[str, int]()
    for number, length in accesses:
        key = f"{number}"
        found = kept.get(key)
        assert (found is not None) == (key in expected)
        if found is not None:
            expected.append(expected.pop(expected.index(key)))
        elif 4 * length <= limit:
            kept.put(key, torch.full((length,), float(number)))
            expected.append(key)
            sizes[key] = 4 * length
            while sum(sizes[name] for name in expected) > limit:
                expected.pop(0)
        assert kept.size == sum(sizes[name] for name in expected) <= limit


def test_content_tells_values_apart_and_knows_what_it_cannot_tell() -> None:
    token = torch.ones(2)
    same = content([[token, {"pooled": token.clone(), "start": 0.0}]])
    assert same == content([[token.clone(), {"start": 0.0, "pooled": token}]])
    assert content(torch.ones([]).expand(1)) == content(torch.ones(1))
    others = ([[token, {"pooled": token, "start": 0.5}]], [[token, {"pooled": -token, "start": 0.0}]], [token], "1", 1)
    assert len({same, *map(content, others)}) == len(others) + 1
    assert content([token, {"hook": object()}]) is None
