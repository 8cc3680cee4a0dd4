"""Cancel ends a run before the next layer of any network, and leaves the base as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from unlearning_core.digests import digest
from unlearning_core.methods import METHODS
from unlearning_core.registry import only_subclass

Pack = Callable[[str], ModuleType]
TRAINING = {
    "forget_prompts": "a cat face",
    "overwrite_prompt": "a dog face",
    "retain_prompts": "a car",
    "weights": "method default",
    "steps": 2,
    "learning_rate": 1e-3,
    "width": 64,
    "height": 64,
    "batch_size": 1,
    "runs": 2,
    "run_steps": 3,
}
MEASURING = {
    "retain_prompts": "a car in noto style",
    "forget_prompts": "a cat face in noto style",
    "seed": 0,
    "seeds": 2,
    "forget_seeds": 2,
    "sampler_name": "euler",
    "scheduler": "simple",
    "steps": 1,
    "cfg": 1.0,
    "width": 64,
    "height": 64,
    "clip_model": "shipped",
    "fid": False,
}


@pytest.fixture(autouse=True)
def quiet(pack: Pack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """No server to show progress, no file in ComfyUI's folders, nothing that other tests found out, no cancel left."""
    folder_paths = pack("nodes.host.folders").folder_paths
    for kind in ("output", "temp"):
        monkeypatch.setattr(folder_paths, f"get_{kind}_directory", lambda: str(tmp_path))
    management = pack("nodes.host.progress").comfy.model_management
    monkeypatch.setattr(pack("nodes.host.progress"), "show", lambda text, node_id: None)
    monkeypatch.setattr(pack("nodes.host.unlearning"), "show", lambda text, node_id: None)
    monkeypatch.setattr(pack("nodes.host.live"), "send", lambda run, **content: None)
    for kind in (pack("nodes.unlearn").UnlearnConcept, pack("nodes.measuring").MeasuringNode):
        monkeypatch.setattr(kind, "hidden", SimpleNamespace(unique_id="1"), raising=False)
    monkeypatch.setattr(pack("unlearning_core.selections"), "_reads", {})
    monkeypatch.setattr(pack("nodes.host.unlearning"), "kept", pack("unlearning_core.kept").KeptPredictions())
    yield management
    management.interrupt_current_processing(False)


@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_training_ends_before_the_next_call(
    pack: Pack, quiet: ModuleType, model: Any, clip: Any, method: str, call: int
) -> None:
    network = type(model.model.diffusion_model)
    quiet.load_models_gpu([model])  # another clone's patches may be on the network
    weights, calls = digest(model.model.state_dict()), 0

    def count(module: Any, *_: Any) -> None:
        nonlocal calls
        if isinstance(module, network):
            calls += 1
            if calls == call:
                quiet.interrupt_current_processing(True)

    handle = register_module_forward_pre_hook(count)  # closed forms leave the network in the middle
    try:
        with pytest.raises(quiet.InterruptProcessingException):
            pack("nodes.unlearn").UnlearnConcept.execute(model, clip, {"method": method}, **TRAINING)
    finally:
        handle.remove()
    assert calls == call
    assert digest(model.model.state_dict()) == weights
    assert not model.patches


def test_a_backward_pass_ends_too(pack: Pack, quiet: ModuleType, model: Any, clip: Any) -> None:
    settings = pack("unlearning_core.settings").Settings(width=64, height=64)
    with pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        deltas = pack("unlearning_core.unlearn").new_deltas(host, settings)
        with host.attach(deltas):
            x0 = host.predict_x0(host.noise([0], 64, 64), host.sigmas(1)[:1], host.encode([""]))
            quiet.interrupt_current_processing(True)
            with pytest.raises(quiet.InterruptProcessingException):
                x0.sum().backward()


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("retention", "comfy"),
        ("retention", "lpips"),
        ("forgetting", "lpips"),
        ("quality", "open_clip"),
        ("compare", "lpips"),
    ],
)
def test_measuring_ends_at_the_next_layer(
    pack: Pack, quiet: ModuleType, model: Any, clip: Any, module: str, library: str
) -> None:
    with torch.inference_mode():
        _, _, vae, judge = pack("nodes.tiny").LoadTinyT2I.execute().result
    models = {"base_model": model, "unlearned_model": model, "models": {"model0": model}, "names": ""}
    layers = 0

    def cancel(layer: Any, inputs: Any) -> None:
        nonlocal layers
        layers += layers > 0
        if not layers and type(layer).__module__.startswith(library):
            layers = 1
            quiet.interrupt_current_processing(True)

    kind = only_subclass(pack(f"nodes.{module}"), pack("nodes.measuring").MeasuringNode)
    handle = register_module_forward_pre_hook(cancel)
    try:
        with torch.inference_mode(), pytest.raises(quiet.InterruptProcessingException):
            kind.execute(**models, clip=clip, vae=vae, judge=judge, **MEASURING)
    finally:
        handle.remove()
    assert layers == 1


def test_a_digest_of_weights_ends_between_two_weights(pack: Pack, quiet: ModuleType, model: Any) -> None:
    identity = pack("nodes.host.identity")
    identity._digests.clear()
    quiet.interrupt_current_processing(True)
    with pytest.raises(quiet.InterruptProcessingException):
        identity.model_identity(model)
    assert model.model not in identity._digests
