"""Memory is refused before training starts, saved where that is enough, and released; precision is watched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pipelines
import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from unlearning_core.hosts.families import host_of
from unlearning_core.methods import METHODS
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.unlearn import unlearn

Pack = Callable[[str], ModuleType]


@pytest.fixture
def settings(pack: Pack) -> Any:
    return pack("unlearning_core.settings").Settings(width=128, height=128, batch_size=2, weights="all")


@pytest.fixture
def free(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Pretends that so many bytes are free."""
    return lambda count: monkeypatch.setattr(pack("nodes.host.memory"), "_free", lambda host, need: count)


def make_room(pack: Pack, model: Any, clip: Any, settings: Any) -> tuple[Any, bool]:
    """What training needs, and whether it was told to save memory."""
    with pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        method = pack("unlearning_core.methods").METHODS["ovw"]()
        need = pack("nodes.host.memory").make_room(host, method, settings, ["a cat face", ""])
        return need, host.backward.checkpointing


def test_training_that_does_not_fit_is_refused(
    pack: Pack, model: Any, clip: Any, settings: Any, free: Callable[[int], None]
) -> None:
    free(20_000_000)
    message = r"memory: Unlearn needs about 0\.\d GB, 0\.0 GB are free: choose .*rank 8 or cross_attention_kv"
    with pytest.raises(ValueError, match=message):
        make_room(pack, model, clip, settings)


def test_advice_fits_the_settings(pack: Pack, settings: Any) -> None:
    need = pack("unlearning_core.memory").Need(weights=0, training=1, activations=2)

    def advice(**changes: Any) -> str:
        with pytest.raises(ValueError) as error:
            need.check(0, replace(settings, **changes))
        return str(error.value).partition(": choose ")[2]

    smaller = "a smaller width and height"
    assert advice() == f"a smaller micro_batch or batch_size or {smaller} or rank 8 or cross_attention_kv"
    assert advice(batch_size=1, rank=8, weights="cross_attention_kv") == smaller


def test_text_encoder_leaves_before_training(pack: Pack, model: Any, clip: Any, settings: Any) -> None:
    """All prompts are encoded before memory is counted, and none after."""
    with pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        prompts = pack("unlearning_core.prompts").Prompts(("a cat face",), ("a dog face",), ("a car",))
        everything = pack("unlearning_core.prompts").all_prompts(prompts)
        ovw = pack("unlearning_core.methods").METHODS["ovw"]()
        pack("nodes.host.memory").make_room(host, ovw, settings, everything)
        host.clip = None
        short = replace(settings, steps=1, runs=1, run_steps=2)
        patch = pack("unlearning_core.unlearn").unlearn(host, ovw, prompts, short)
    assert any(change.any() for change in patch.changes().values())


@pytest.mark.parametrize(("method", "rank"), [("sa", 0), ("sa", 4), ("salun", 4)])
def test_what_a_method_holds_is_counted(
    pack: Pack, model: Any, clip: Any, settings: Any, method: str, rank: int
) -> None:
    with pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        kinds = pack("unlearning_core.methods").METHODS
        chosen = replace(settings, rank=rank, weights="cross_attention_kv")
        deltas = pack("unlearning_core.unlearn").new_deltas(host, chosen)
        needs = [pack("unlearning_core.memory").needed(host, kinds[name](), deltas, chosen) for name in ("esd", method)]
        numbers = sum(host.weights()[name].numel() for name in deltas)
    assert needs[1].training - needs[0].training >= (4 if rank == 0 else 8) * numbers


def test_measuring_memory_needs_little_itself(pack: Pack, model: Any, clip: Any) -> None:
    """Activations go as soon as the pass has used them."""
    outputs: list[StorageWeakRef] = []
    alive: list[int] = []
    with pack("nodes.host.private").private_copy(model) as private, ExitStack() as hooks:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        weights = host.weights()
        names = pack("unlearning_core.model").matching(list(weights), "attention")
        deltas = pack("unlearning_core.deltas").make_deltas({name: weights[name] for name in names}, 0, 0, host.device)
        network = private.model.diffusion_model
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                note = module.register_forward_hook(lambda module, inputs, output: outputs.append(storage(output)))
                hooks.callback(note.remove)
        count = network.out[-1].register_forward_pre_hook(
            lambda module, inputs: alive.append(sum(not output.expired() for output in outputs))
        )
        hooks.callback(count.remove)
        with host.attach(deltas):
            pack("unlearning_core.memory").kept_bytes(host, 128, 128, 1)
    assert len(outputs) > 20
    assert alive[0] < len(outputs) / 4


def storage(output: Tensor) -> StorageWeakRef:
    return StorageWeakRef(output.untyped_storage())


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


def as_loaded_in_half(model: Any) -> None:
    """As ComfyUI holds a checkpoint in fp16 for a device that computes in fp32."""
    model.diffusion_model.half()
    model.manual_cast_dtype = torch.float32
    for module in model.diffusion_model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True


@pytest.mark.parametrize("checkpointing", [False, True])
def test_weights_that_a_layer_casts_are_not_kept_for_backward(
    pack: Pack, model: Any, clip: Any, settings: Any, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    """The same gradients, to the bit, and at least the cast weights less is kept."""
    gradients: list[Tensor] = []
    kept: list[int] = []
    with pack("nodes.host.private").private_copy(model) as private:
        as_loaded_in_half(private.model)
        host = pack("nodes.host.model").ComfyModel(private, clip)
        host.backward.checkpointing = checkpointing
        deltas = pack("unlearning_core.unlearn").new_deltas(host, replace(settings, weights="cross_attention_kv"))
        for worth in (2**60, 0):
            monkeypatch.setattr(pack("nodes.host.casting"), "WORTH", worth)
            gradients.append(host.check_backward(deltas, 128, 128))
            with host.attach(deltas):
                kept.append(pack("unlearning_core.memory").kept_bytes(host, 128, 128, 1))
        linear = [module for module in private.model.diffusion_model.modules() if isinstance(module, torch.nn.Linear)]
    assert torch.equal(*gradients)
    assert gradients[0].any()
    if not checkpointing:
        assert kept[0] - kept[1] > 4 * sum(module.weight.numel() for module in linear) / 2


def test_running_out_of_memory_is_comfyuis_own_error_and_releases_the_copy(
    pack: Pack, model: Any, clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management

    comfy.model_management.unload_all_models()
    prompts = pack("unlearning_core.prompts").Prompts(("a cat face",))
    settings = pack("unlearning_core.settings").Settings(width=128, height=128, runs=1, run_steps=2)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    during: list[int] = []

    def run_out(progress: Any) -> None:
        if progress.loss is not None:
            loaded = comfy.model_management.current_loaded_models
            during.append(sum(type(each.model.model) is type(model.model) for each in loaded if each.model))
            raise comfy.model_management.OOM_EXCEPTION("out of memory")

    with pytest.raises(comfy.model_management.OOM_EXCEPTION), pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
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
        pack("nodes.host.rounding").rounding_warning(base, patch, 1.0)
        for model in (base, pack("nodes.host.patching").apply_patch(base, patch, 1.0)):
            with torch.no_grad():
                comfy.model_management.load_models_gpu([model])
                predictions.append(model.model.apply_model(x, torch.full((2,), 0.7), **conds))
        return predictions[1] - predictions[0]

    expected = moved(torch.float32)
    assert "whose rounding keeps" not in caplog.text
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float8_e4m3fn, "float8_e4m3fn")):
        caplog.clear()
        error = float((moved(dtype) - expected).norm() / expected.norm())
        assert (error > 0.25) is lost
        assert (f"stored in {name}, whose rounding keeps" in caplog.text) is lost
