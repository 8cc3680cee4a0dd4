"""Memory: refused before training starts, saved where that is enough, and released when the device runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

Pack = Callable[[str], ModuleType]


@pytest.fixture
def settings(pack: Pack) -> Any:
    return pack("unlearning_core.train").Settings(width=128, height=128, batch_size=2, weights="all")


@pytest.fixture
def free(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretends that so many bytes are free."""
    return lambda count: monkeypatch.setattr(pack("nodes.memory"), "_free", lambda host, need: count)


def make_room(pack: Pack, model: Any, clip: Any, settings: Any) -> tuple[Any, bool]:
    """What training needs, and whether it was told to save memory."""
    with pack("nodes.private").private_copy(model) as private:
        host = pack("nodes.model").ComfyModel(private, clip)
        need = pack("nodes.memory").make_room(host, pack("unlearning_core.methods").METHODS["ovw"](), settings)
        return need, host.checkpointing


def test_training_that_does_not_fit_is_refused(
    pack: Pack, model: Any, clip: Any, settings: Any, free: Callable[[int], None]
) -> None:
    free(20_000_000)
    message = r"memory: Unlearn needs about 0\.\d GB, 0\.0 GB are free: choose .*rank 8 or cross_attention_kv"
    with pytest.raises(ValueError, match=message):
        make_room(pack, model, clip, settings)


def test_memory_is_saved_only_when_it_must_be(
    pack: Pack, model: Any, clip: Any, settings: Any, free: Callable[[int], None]
) -> None:
    chosen = replace(settings, weights="cross_attention_kv")
    plain, saving = make_room(pack, model, clip, chosen)
    assert not saving
    free(plain.extra - 1)
    saved, saving = make_room(pack, model, clip, chosen)
    assert saving
    assert saved.activations < plain.activations


def test_running_out_of_memory_is_comfyuis_own_error_and_releases_the_copy(
    pack: Pack, model: Any, clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management

    prompts = pack("unlearning_core.prompts").Prompts(("a cat face",))
    settings = pack("unlearning_core.train").Settings(width=128, height=128, runs=1, run_steps=2)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    during: list[int] = []

    def run_out(progress: Any) -> None:
        if progress.loss is not None:
            loaded = comfy.model_management.current_loaded_models
            during.append(sum(type(each.model.model) is type(model.model) for each in loaded if each.model))
            raise comfy.model_management.OOM_EXCEPTION("out of memory")

    with pytest.raises(comfy.model_management.OOM_EXCEPTION), pack("nodes.private").private_copy(model) as private:
        host = pack("nodes.model").ComfyModel(private, clip)
        pack("unlearning_core.unlearn").unlearn(
            host, pack("unlearning_core.methods").METHODS["esd"](), prompts, settings, run_out
        )
    assert during == [1]
    assert all(each.model is not private for each in comfy.model_management.current_loaded_models)
    assert all((weight == before[key]).all() for key, weight in model.model.state_dict().items())
