"""Patch files in ComfyUI: another shape is refused where ComfyUI would skip it, every precision is applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from comfyui import PromptError, Server
from graphs import node, sampling, saved_patch, training
from safetensors.torch import save_file
from torch import Tensor

from unlearning_core.patch import UnlearningPatch

Pack = Callable[[str], ModuleType]
RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]
OTHER_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda diff: diff.T,
    "of another rank": lambda diff: diff[None],
    "in another order": lambda diff: diff.reshape(2 * len(diff), -1),
    "a row short": lambda diff: diff[1:],
    "one number": lambda diff: diff[:1, :1],
}


@pytest.fixture(scope="module")
def patch(pack: Pack, model: Any) -> Any:
    """A full change of one matrix of the shipped model."""
    weights = pack("nodes.host.weights").base_weights(model)
    matrices = pack("unlearning_core.deltas").low_rank_part({name: weights[name] for name in weights})
    name = next(name for name, weight in matrices.items() if weight.ndim == 2 and len(set(weight.shape)) == 2)
    diff = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0))
    module = pack("unlearning_core.patch")
    base = pack("unlearning_core.fingerprint").Fingerprint.of(weights)
    record = module.Record("ovw", {}, ["a cat"], [], [], {}, base, {})
    return module.UnlearningPatch({f"{name.removesuffix('.weight')}.diff": diff}, record)


def test_shapes_are_those_of_the_weights(pack: Pack, model: Any) -> None:
    weights = pack("nodes.host.weights")
    expected = {name: tuple(weight.shape) for name, weight in weights.base_weights(model).items()}
    assert weights.weight_shapes(model) == expected


@pytest.mark.parametrize("how", OTHER_SHAPES)
def test_another_shape_is_refused(pack: Pack, model: Any, patch: Any, how: str) -> None:
    before = dict(model.patches)
    [(key, diff)] = patch.tensors.items()
    with pytest.raises(ValueError, match=r"patch for a cat: 1 of the 1 weights .* another shape in this model"):
        pack("nodes.host.patching").apply_patch(
            model, replace(patch, tensors={key: OTHER_SHAPES[how](diff).contiguous()}), 1.0
        )
    assert model.patches == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("rank", [0, 2])
def test_every_precision_is_applied(pack: Pack, model: Any, patch: Any, dtype: torch.dtype, rank: int) -> None:
    made = pack("unlearning_core.export").to_low_rank(patch, rank) if rank else patch
    lowered = replace(patch, tensors={key: tensor.to(dtype) for key, tensor in made.tensors.items()})
    [(name, change)] = lowered.changes().items()
    with torch.inference_mode():
        patched = pack("nodes.host.patching").apply_patch(model, lowered, 0.5)
        torch.testing.assert_close(pack("nodes.host.weights").patch_changes(patched)[name], 0.5 * change)


def test_loader_refuses_another_shape_without_the_base_check(server: Server, run_prompt: RunPrompt) -> None:
    path = saved_patch(server, run_prompt(training("shapes")))
    whole = UnlearningPatch.load(path)
    key = next(key for key, tensor in whole.tensors.items() if tensor.ndim == 2 and len(set(tensor.shape)) == 2)
    replace(whole, tensors={**whole.tensors, key: whole.tensors[key].T.contiguous()}).save(
        path.with_name("t.safetensors")
    )
    save_file(
        {**whole.tensors, key: whole.tensors[key] / 0}, path.with_name("inf.safetensors"), whole.record.to_metadata()
    )
    for name, message in (("t", "another shape in this model"), ("inf", "hold NaN or infinity")):
        loader = node(
            "LoadPatchedModel", model=["load", 0], patch_file=f"{name}.safetensors", strength=1.0, check_base=False
        )
        with pytest.raises(PromptError, match=message):
            run_prompt({"load": node("LoadTinyT2I"), "ours": loader} | sampling("never", "ours"))


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_prefixes_that_are_too_long_are_refused(pack: Pack, suffix: str) -> None:
    folders = pack("nodes.host.folders")
    longest = 255 - len(f"_00001_{suffix}")
    for letter in ("x", "é"):
        prefix = letter * (longest // len(letter.encode()))
        folders.check_prefix(f"folder/{prefix}", "loras", suffix)
        for bad in (prefix + letter, f"{'y' * 256}/x", "\0", "a\ud800"):
            with pytest.raises(ValueError, match="filename_prefix: "):
                folders.check_prefix(bad, "loras", suffix)
