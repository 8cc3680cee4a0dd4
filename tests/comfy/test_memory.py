"""Memory is refused before training starts, saved where that is enough, and released; precision is watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pipelines
import pytest
import torch
from torch import Tensor

from unlearning_core.hosts.diffusers import host_of
from unlearning_core.methods import METHODS
from unlearning_core.prompts import Prompts
from unlearning_core.train import Settings
from unlearning_core.unlearn import unlearn

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


@pytest.mark.parametrize(("learning_rate", "lost"), [(1e-3, False), (1e-5, True)])
def test_what_rounding_leaves_of_a_patch(
    pack: Pack, comfyui_path: Path, caplog: pytest.LogCaptureFixture, learning_rate: float, lost: bool
) -> None:
    """A patch moves the outputs of bf16 and fp8 bases as it moves those of the fp32 base, or the log says why not."""
    import comfy.sd

    host = host_of(pipelines.make_pipeline("flux", comfyui_path))
    settings = Settings(steps=2, learning_rate=learning_rate, width=64, height=64, runs=1, run_steps=2)
    patch = unlearn(host, METHODS["esd"](), Prompts(("a cat face",)), replace(settings, weights="attention"))
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    [text] = host.encode(["a cat face"])
    assert text.pooled is not None
    conds = {"c_crossattn": text.tokens[None], "y": text.pooled[None], "guidance": torch.tensor([3.5])}
    conds = {name: value.expand(2, *value.shape[1:]) for name, value in conds.items()}

    def moved(dtype: torch.dtype) -> Tensor:
        """What the patch adds to the prediction."""
        weights = {name: weight.clone() for name, weight in host.denoiser.state_dict().items()}
        base = comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": dtype})
        predictions = []
        for model in (base, pack("nodes.patches").apply_patch(base, patch, 1.0)):
            comfy.model_management.load_models_gpu([model])
            with torch.no_grad():
                predictions.append(model.model.apply_model(x, torch.full((2,), 0.7), **conds))
        return predictions[1] - predictions[0]

    expected = moved(torch.float32)
    assert not caplog.records
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float8_e4m3fn, "float8_e4m3fn")):
        caplog.clear()
        error = float((moved(dtype) - expected).norm() / expected.norm())
        assert (error > 0.25) is lost
        assert (f"stored in {name}, whose rounding keeps" in caplog.text) is lost
