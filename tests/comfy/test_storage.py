"""Weights that a loader stores in its own way: drawn and checked as stock sampling does, trained on or refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from on_models import drawing_with
from torch import Tensor, nn

from unlearning_core.tiny import MODEL

Pack = Callable[[str], ModuleType]
FORMATS = ["float8_e4m3fn", "float8_e5m2", "nvfp4", "mxfp8", "int8_tensorwise"]
PLAIN = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture(autouse=True)
def no_inference_mode_left(pack: Pack) -> Iterator[None]:
    yield
    import comfy.model_management

    comfy.model_management.unload_all_models()


def named_weights(pack: Pack) -> dict[str, Tensor]:
    """The shipped model's, under ComfyUI's names."""
    import comfy.utils

    tiny = pack("nodes.host.tiny")
    names = comfy.utils.unet_to_diffusers(tiny.TinyT2I.unet_config)
    weights = tiny.load_weights(MODEL / "unet" / "diffusion_pytorch_model.safetensors")
    return {names[key]: weight for key, weight in weights.items()}


def loaded(pack: Pack, weights: dict[str, Tensor], dtype: torch.dtype = torch.float32, quantized: bool = False) -> Any:
    """A MODEL of the shipped model's kind with other weights, as ComfyUI's loaders make it."""
    import comfy.model_patcher

    tiny = pack("nodes.host.tiny")
    config = tiny.TinyT2I(tiny.TinyT2I.unet_config)
    config.set_inference_dtype(dtype, torch.float32)
    if quantized:
        config.quant_config = {"mixed_ops": True}
    with torch.inference_mode():
        model = config.get_model(weights)
        model.load_model_weights(dict(weights))
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def quantized(weights: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Matrices in one of ComfyUI's formats, as its quantized files hold them."""
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    layout = QUANT_ALGOS[kind]["comfy_tensor_layout"]
    options = {} if kind in ("mxfp8", "int8_tensorwise") else {"scale": "recalculate"}
    conf = torch.tensor(list(json.dumps({"format": kind}).encode()), dtype=torch.uint8)
    stored = dict(weights)
    for name, weight in weights.items():
        if weight.ndim == 2 and min(weight.shape) >= 64 and not name.startswith("time_embed"):
            stored |= QuantizedTensor.from_float(weight, layout, **options).state_dict(name)
            stored[name.removesuffix("weight") + "comfy_quant"] = conf
    return stored


def dequantized(model: Any) -> dict[str, Tensor]:
    """What a quantized MODEL's weights are worth, under ComfyUI's names."""
    return {
        name.removeprefix("diffusion_model."): weight.dequantize() if hasattr(weight, "dequantize") else weight
        for name, weight in model.model.named_parameters()
    }


def fingerprint(pack: Pack, model: Any) -> Any:
    return pack("nodes.host.traits").fingerprint(model)


def another(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A fine-tune: every weight off by a quarter or so."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: weight + 0.25 * weight.abs().mean() * torch.randn(weight.shape, generator=generator)
        for name, weight in weights.items()
    }


def fp16(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.half() for name, weight in weights.items()}


@pytest.mark.parametrize("dtype", PLAIN, ids=str)
def test_precision_makes_no_other_base(
    pack: Pack, unlearned: Callable[..., Any], clip: Any, dtype: torch.dtype
) -> None:
    weights = fp16(named_weights(pack))
    full = fingerprint(pack, loaded(pack, weights))
    stored = loaded(pack, {name: weight.to(dtype) for name, weight in weights.items()}, dtype)
    other = loaded(pack, {name: weight.to(dtype) for name, weight in another(weights).items()}, dtype)
    for one, two in ((full, fingerprint(pack, stored)), (fingerprint(pack, stored), full)):
        assert one.difference(two) is None
    assert "its weights differ by" in full.difference(fingerprint(pack, other))
    assert "its weights differ by" in fingerprint(pack, other).difference(full)
    assert unlearned(stored, clip, "ovw").record.base.difference(full) is None


@pytest.mark.parametrize("kind", FORMATS)
def test_quantized_weights_are_dequantized_for_training(
    pack: Pack, unlearned: Callable[..., Any], clip: Any, kind: str
) -> None:
    """Closed forms, training, base check, rounding and pictures, of a checkpoint that ComfyUI samples."""
    from comfy.quant_ops import QUANT_ALGOS

    if kind not in QUANT_ALGOS:
        pytest.skip("a format that this ComfyUI does not have yet")
    weights = named_weights(pack)
    stored = loaded(pack, quantized(weights, kind), quantized=True)
    plain = loaded(pack, dequantized(stored))
    before = {
        name: [part.clone() for part in pack("unlearning_core.digests").inner_tensors(weight)]
        for name, weight in stored.model.named_parameters()
    }
    with torch.inference_mode():
        pictures = drawing_with(pack, clip).draw(stored, [("a cat face", 0)])
        identity = drawing_with(pack, clip).identity(stored)
    for method in ("uce", "ovw"):
        patch, expected = (unlearned(model, clip, method) for model in (stored, plain))
        for name, change in expected.changes().items():
            torch.testing.assert_close(patch.changes()[name], change, rtol=0, atol=1e-5 * float(change.abs().max()))
    assert patch.record.base.difference(fingerprint(pack, loaded(pack, weights))) is None
    assert fingerprint(pack, loaded(pack, weights)).difference(fingerprint(pack, stored)) is None
    assert "differ by" in fingerprint(pack, loaded(pack, another(another(weights)))).difference(
        fingerprint(pack, stored)
    )
    with torch.inference_mode():
        patched = pack("nodes.host.patching").apply_patch(stored, patch, 1.0)
        assert pack("nodes.host.rounding").after_rounding(stored, patch, 1.0).noise >= 0
        assert not torch.equal(drawing_with(pack, clip).draw(patched, [("a cat face", 0)]), pictures)
        assert torch.equal(drawing_with(pack, clip).draw(stored, [("a cat face", 0)]), pictures)
        assert drawing_with(pack, clip).identity(stored) == identity
    for name, weight in stored.model.named_parameters():
        assert all(map(torch.equal, pack("unlearning_core.digests").inner_tensors(weight), before[name]))


class Packed(Tensor):
    """Bytes in a loader's own format, which says that it has the shape of what they stand for."""

    real_shape: tuple[int, ...]
    scale: Tensor

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        return torch.Size(self.real_shape)


class PackingLinear:
    """Made into a module's class: its weight is packed as 8-bit numbers of a scale that only it knows."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        numbers = self.weight.as_subclass(Tensor).view(torch.int8).view(self.weight.real_shape)  # type: ignore[attr-defined]
        return nn.functional.linear(x, numbers.to(x) * self.weight.scale, self.bias)  # type: ignore[attr-defined]


@torch.no_grad()
def packed(model: Any) -> None:
    """Packs the layers of text, and lists a tensor in their state dicts that no attribute has, as GGUF loaders do."""
    for name, module in model.model.named_modules():
        if not name.endswith(("attn2.to_k", "attn2.to_v")):
            continue
        scale = module.weight.abs().max() / 127
        numbers = (module.weight / scale).round().to(torch.int8)
        weight = numbers.view(torch.uint8).flatten().as_subclass(Packed)
        weight.real_shape, weight.scale = tuple(module.weight.shape), scale
        module._parameters["weight"] = weight
        module.__class__ = type("Linear", (PackingLinear, type(module)), {})
        module._register_state_dict_hook(
            lambda module, state, prefix, _: state.update({f"{prefix}temp.weight": torch.ones(1)})
        )


def test_packed_weights_are_refused_for_training_and_work_elsewhere(
    pack: Pack, unlearned: Callable[..., Any], clip: Any
) -> None:
    weights = named_weights(pack)
    base, stored = loaded(pack, weights), loaded(pack, weights)
    packed(stored)
    patch = unlearned(base, clip, "uce")
    for method in ("uce", "ovw"):
        with pytest.raises(ValueError, match=r"model: its loader stores diffusion_model.*to_k.weight as Packed"):
            unlearned(stored, clip, method)
    with torch.inference_mode():
        assert drawing_with(pack, clip).draw(stored, [("a cat face", 0)]).isfinite().all()
        assert drawing_with(pack, clip).identity(stored) != drawing_with(pack, clip).identity(base)
        assert patch.record.base.difference(fingerprint(pack, stored)) is None
        assert pack("nodes.host.weights").weight_shapes(stored) == pack("nodes.host.weights").weight_shapes(base)
        other = loaded(pack, another(another(weights)))
        packed(other)
        assert "its weights differ by" in patch.record.base.difference(fingerprint(pack, other))
