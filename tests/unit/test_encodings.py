"""Forget prompts that the model reads as something that is to stay, and patches that change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.hosts.stable_diffusion import StableDiffusion
from unlearning_core.methods import METHODS
from unlearning_core.patch import UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.world import vocabulary
from unlearning_core.unlearn import unlearn

SETTINGS = Settings(steps=1, runs=1, run_steps=2, batch_size=1, width=64, height=64, learning_rate=1e-3)


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


def made(model: DiffusersModel, prompts: Prompts, method: str = "uce") -> UnlearningPatch:
    return unlearn(model, METHODS[method](), prompts, replace(SETTINGS, weights=METHODS[method].weights))


@pytest.mark.parametrize("method", ["uce", "ovw"])
@pytest.mark.parametrize(
    ("prompts", "twin"),
    [
        (Prompts(("a  cat face",), ("a cat face",)), "its overwrite prompt 'a cat face'"),
        (Prompts(("\u200b",), ("a dog face",)), "the empty prompt ''"),
        (Prompts(("a cat  face",), ("a dog face",), ("a car", "a cat face")), "a retain prompt 'a cat face'"),
    ],
)
def test_a_forget_prompt_that_reads_as_another_is_refused(
    model: DiffusersModel, method: str, prompts: Prompts, twin: str
) -> None:
    with pytest.raises(ValueError, match=rf"forget prompts: .* encodes as {twin} does"):
        made(model, prompts, method)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a cat face", "a dog face"), ("a car", "a  cat face")], "which 'a car' is to become"),
        ([("a cat face", "a dog face"), ("a  cat face", "a car")], "encode alike, and are to become"),
    ],
)
def test_prompts_that_contradict_each_other_as_the_model_reads_them(
    model: DiffusersModel, pairs: list[tuple[str, str]], message: str
) -> None:
    forget, overwrite = zip(*pairs, strict=True)
    with pytest.raises(ValueError, match=message):
        made(model, Prompts(forget, overwrite))


def test_a_prompt_without_a_finite_encoding_is_refused(model: DiffusersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = StableDiffusion.encode

    def broken(self: StableDiffusion, prompts: list[str]) -> list[object]:
        return [text._replace(tokens=text.tokens * torch.nan) for text in encode(self, prompts)]

    monkeypatch.setattr(StableDiffusion, "encode", broken)
    with pytest.raises(ValueError, match="prompts: 'a cat face' encodes to NaN or infinity"):
        made(model, Prompts(("a cat face",), ("a dog face",)))


@given(words=st.lists(st.sampled_from([*vocabulary(), "  ", "é", "zebra", ","]), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_forget_prompt_gives_a_change_or_a_reason(model: DiffusersModel, words: list[str]) -> None:
    forget = " ".join(words).strip()
    try:
        patch = made(model, Prompts((forget,), ("a dog face",), ("a car",)))
    except ValueError as error:
        assert "prompts: " in str(error) or "prompt: " in str(error)
    else:
        changes = patch.changes().values()
        assert all(change.isfinite().all() for change in changes) and any(change.any() for change in changes)


@pytest.mark.parametrize(
    ("value", "message"), [(0.0, "it changes nothing"), (torch.nan, "NaN or infinity"), (torch.inf, "NaN or infinity")]
)
def test_a_patch_that_is_nothing_is_never_written(
    model: DiffusersModel, value: float, message: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    patch = made(model, Prompts(("a cat face",), ("a dog face",)))
    folder = tmp_path_factory.mktemp("nothing")
    broken = replace(patch, tensors={key: torch.full_like(tensor, value) for key, tensor in patch.tensors.items()})
    with pytest.raises(ValueError, match=f"patch: .*{message}"):
        broken.save(folder / "patch.safetensors")
    assert not list(folder.iterdir())
