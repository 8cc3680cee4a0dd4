"""Protected changes: they leave alone what the prompts to keep read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unlearning_core.deltas import PROTECTED_RATE, Directions, make_deltas
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.methods.ovw import Ovw
from unlearning_core.patch import UnlearningPatch
from unlearning_core.progress import Progress
from unlearning_core.prompts import Prompts, held_prompts
from unlearning_core.protection import protected_directions
from unlearning_core.selections import selections_of
from unlearning_core.settings import Settings
from unlearning_core.texts import TextReader
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.world import prompts
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face",), ("a dog face",), ("a frog", "a car in noto style", "a house in twemoji style"))
TOLERANCE = 0.01
SETTINGS = Settings(
    steps=5, runs=2, run_steps=3, width=64, height=64, protect=TOLERANCE, learning_rate=1e-3, batch_size=2
)


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


@given(st.integers(0, 2**31), st.integers(1, 7), st.sampled_from([(5, 8), (5, 8, 1, 1)]), st.sampled_from([0, 3]))
def test_changes_keep_to_their_directions(seed: int, count: int, shape: tuple[int, ...], rank: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0].T
    weight, free, kept = torch.randn(shape, generator=generator), basis[:count], basis[count:]
    protected = {"a.weight": Directions(free, 1.0)}
    deltas = make_deltas({"a.weight": weight, "b.weight": weight}, rank, 0, torch.device("cpu"), 1.0, protected)
    for delta in deltas.values():
        for parameter in delta.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
    changed, other = (deltas[name].change().flatten(1) for name in ("a.weight", "b.weight"))
    torch.testing.assert_close(changed @ kept.T, torch.zeros(5, 8 - count), atol=1e-5, rtol=0)
    assert (changed @ free.T).abs().max() > 1e-3
    assert (other @ kept.T).abs().max() > 1e-3
    torch.testing.assert_close(deltas["a.weight"](weight) - weight, deltas["a.weight"].change(), atol=1e-5, rtol=0)
    assert (deltas["a.weight"].rate, deltas["b.weight"].rate) == (PROTECTED_RATE, 1.0)


@pytest.mark.parametrize("rank", [0, 4])
def test_what_retain_prompts_read_stays(model: DiffusersModel, rank: int) -> None:
    """Of a layer's outputs for a held token, no more moves than the tolerance times its largest possible change."""
    told: list[Progress] = []
    settings = replace(SETTINGS, rank=rank)
    patch = unlearn(model, Ovw(), PROMPTS, settings, told.append)
    moved, most = outputs(model, patch)
    assert moved <= 1.5 * TOLERANCE * most
    unprotected, _ = outputs(model, unlearn(model, Ovw(), PROMPTS, replace(settings, protect=0.0)))
    assert unprotected > 3 * moved / PROTECTED_RATE
    [note] = [progress.note for progress in told if progress.note]
    width = next(iter(patch.changes().values())).shape[1]
    assert f"of {width} directions of the text may change" in note


def test_the_subjects_with_other_endings_stay_too(model: DiffusersModel) -> None:
    """What protects a prompt with another one's ending moves its tokens less."""
    asked = TextReader(model, selections_of(model, SETTINGS.size).of("text_projections"), SETTINGS.size)
    tokens = asked.read("a car in twemoji style")[0].float()
    along = []
    for count in (0, 8):
        free = protected_directions(model, replace(SETTINGS, held_wordings=count), PROMPTS)
        along.append(max(float((tokens @ each.free.T).norm()) for each in free.values()))
    assert along[1] < along[0] / 2


def outputs(model: DiffusersModel, patch: UnlearningPatch) -> tuple[float, float]:
    """How far the held prompts' tokens move at the output of any layer, at most, and how far tokens could move."""
    names = selections_of(model, SETTINGS.size).of("cross_attention_kv")
    reader = TextReader(model, names, SETTINGS.size)
    tokens = torch.cat([reader.read(prompt)[0] for prompt in held_prompts(PROMPTS)]).float()
    largest = float(torch.linalg.matrix_norm(tokens, 2))
    changes: list[Tensor] = list(patch.changes().values())
    moved = max(float((tokens @ change.T).norm(dim=1).max()) for change in changes)
    return moved, largest * max(float(torch.linalg.matrix_norm(change, 2)) for change in changes)


def test_layers_that_see_the_picture_are_not_protected(model: DiffusersModel) -> None:
    protected = protected_directions(model, replace(SETTINGS, weights="all"), PROMPTS)
    assert set(protected) == set(selections_of(model, SETTINGS.size).of("text_projections"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "not_cross_attention"}, "protect: none of the chosen weights reads the text"),
        ({"protect": 1e-9}, "protect: the retain prompts leave no direction of the text below 1e-09"),
        ({"protect": 1.5}, "protect: 1.5 is out of range"),
    ],
)
def test_what_cannot_be_protected_is_refused(model: DiffusersModel, changes: dict[str, object], message: str) -> None:
    everything = replace(PROMPTS, retain=tuple(prompts()[6:]))  # whose tokens lie in all directions
    with pytest.raises(ValueError, match=message):
        unlearn(model, Ovw(), everything, replace(SETTINGS, **changes))  # type: ignore[arg-type]
