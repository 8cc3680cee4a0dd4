"""What people put on a MODEL: changes of its weights, what acts beside them, how it is sampled."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from unlearning_core.tiny import MODEL

Pack = Callable[[str], ModuleType]
Node = Callable[..., Any]
CHANGED = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
ATTENTION = CHANGED.removesuffix(".to_k.weight")
LORA = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora(width: int = 64, text: int = 128) -> dict[str, Tensor]:
    down = seeded(4, text, seed=1) / text**0.5
    return {f"{LORA}.lora_up.weight": 0.5 * seeded(2 * width, 4), f"{LORA}.lora_down.weight": down}


def dora() -> dict[str, Tensor]:
    return {**lora(), f"{LORA}.dora_scale": 1 + seeded(1, 128, seed=2).abs()}


def lokr() -> dict[str, Tensor]:
    return {f"{LORA}.lokr_w1": 0.3 * seeded(8, 8), f"{LORA}.lokr_w2": 0.3 * seeded(16, 16, seed=1)}


def loha() -> dict[str, Tensor]:
    shapes = {"hada_w1_a": (128, 4), "hada_w1_b": (4, 128), "hada_w2_a": (128, 4), "hada_w2_b": (4, 128)}
    return {f"{LORA}.{name}": 0.4 * seeded(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}


def oft() -> dict[str, Tensor]:
    return {f"{LORA}.oft_blocks": 0.05 * seeded(8, 16, 16)}


def full() -> dict[str, Tensor]:
    return {f"{LORA}.diff": 0.1 * seeded(128, 128)}


LORAS = {"lora": lora, "dora": dora, "lokr": lokr, "loha": loha, "oft": oft, "full": full}


def checkpoint_beside(pack: Pack, seed: int) -> Any:
    """Another checkpoint of the family."""
    with torch.inference_mode():
        model = pack("nodes.host.tiny").load_model(MODEL)
        for number, weight in enumerate(model.model.diffusion_model.parameters()):
            weight.add_(0.2 * weight.std(correction=0) * seeded(*weight.shape, seed=1000 * seed + number))
    return model


def extras(name: str, node: str) -> Node:
    """The function of one of ComfyUI's own nodes."""

    kind = getattr(importlib.import_module(f"comfy_extras.{name}"), node)
    if hasattr(kind, "execute"):
        return lambda *inputs, **options: kind.execute(*inputs, **options)[0]
    return lambda *inputs, **options: getattr(kind(), kind.FUNCTION)(*inputs, **options)[0]


def loaded(model: Any, file: dict[str, Tensor], strength: float = 1.0) -> Any:
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, dict(file), strength, 0.0)[0]


def adapted(file: Callable[[], dict[str, Tensor]]) -> Callable[[Any, Any], Any]:
    return lambda model, other: loaded(model, file(), -0.6)


def merged(node: str, *models: Any, **options: Any) -> Any:
    return extras("nodes_model_merging", node)(*models, **options)


# Each puts a change of weights on `model`; `other` is another checkpoint.
WAYS: dict[str, Callable[[Any, Any], Any]] = {
    **{kind: adapted(file) for kind, file in LORAS.items()},
    "merge": lambda m, o: merged("ModelMergeSimple", m, o, ratio=0.5),
    "merge with itself": lambda m, o: merged("ModelMergeSimple", m, m, ratio=0.5),
    "merge of merges": lambda m, o: merged(
        "ModelMergeSimple", merged("ModelMergeSimple", m, o, ratio=0.3), loaded(o, lora()), ratio=0.7
    ),
    "difference": lambda m, o: merged("ModelAdd", m, merged("ModelSubtract", o, m, multiplier=0.5)),
    "block merge": lambda m, o: merged("ModelMergeBlocks", m, o, input=0.3, middle=0.6, out=0.9),
    "lora on a merge": lambda m, o: loaded(merged("ModelMergeSimple", m, o, ratio=0.5), lora()),
    "dora on a lora": lambda m, o: loaded(loaded(m, full()), dora()),
    "attention multiplied": lambda m, o: extras("nodes_attention_multiply", "UNetCrossAttentionMultiply")(
        m, 1.2, 0.8, 1.1, 0.9
    ),
}


def bypass(model: Any) -> Any:
    import comfy.sd

    return comfy.sd.load_bypass_lora_for_models(model, None, lora(), 1.0, 0.0)[0]


def hooked(model: Any) -> Any:
    import comfy.hooks

    patched = model.clone()
    patched.forced_hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)
    return patched


def with_call(method: str, *arguments: Any) -> Callable[[Any], Any]:
    def make(model: Any) -> Any:
        patched = model.clone()
        getattr(patched, method)(*arguments)
        return patched

    return make


def same(value: Any, *rest: Any) -> Any:
    return value


# Each puts something on a MODEL that acts beside its weights -> a word of the refusal.
BESIDE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "FreeU": (lambda m: extras("nodes_freelunch", "FreeU")(m, 1.1, 1.2, 0.9, 0.2), "FreeU"),
    "FreeU_V2": (lambda m: extras("nodes_freelunch", "FreeU_V2")(m, 1.3, 1.4, 0.9, 0.2), "FreeU_V2"),
    "bypass LoRA": (bypass, "bypass_lora"),
    "hooks": (hooked, "forced_hooks"),
    "ToMe": (lambda m: extras("nodes_tomesd", "TomePatchModel")(m, 0.3), "Tome"),
    "HyperTile": (lambda m: extras("nodes_hypertile", "HyperTile")(m, 64, 2, 0, False), "HyperTile"),
    "deep shrink": (
        lambda m: extras("nodes_model_downscale", "PatchModelAddDownscale")(
            m, 3, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"
        ),
        "Downscale",
    ),
    "attention patch": (with_call("set_model_attn2_patch", lambda q, k, v, options: (q, k, v)), "attn2_patch"),
    "input block patch": (with_call("set_model_input_block_patch", same), "input_block_patch"),
    "unet wrapper": (
        with_call("set_model_unet_function_wrapper", lambda apply, a: apply(a["input"], a["timestep"], **a["c"])),
        "model_function_wrapper",
    ),
    "calc_cond_batch": (with_call("set_model_sampler_calc_cond_batch_function", same), "calc_cond_batch"),
    "wrapper": (with_call("add_wrapper", "diffusion_model", lambda executor, *a, **k: executor(*a, **k)), "wrappers"),
    "callback": (with_call("add_callback", "on_load", same), "callbacks"),
    "object patch": (with_call("add_object_patch", "diffusion_model.time_embed", torch.nn.Identity()), "time_embed"),
    "weight in place": (with_call("add_object_patch", CHANGED, torch.nn.Parameter(torch.ones(128, 128))), CHANGED),
    "patched method": (with_call("add_object_patch", "diffusion_model.forward", same), "diffusion_model.forward"),
    "value in place": (with_call("add_object_patch", f"{ATTENTION}.heads", 1), "attn2.heads"),
    "weight wrapper": (with_call("add_weight_wrapper", CHANGED, same), "weight_wrapper_patches"),
}


def drawing_with(pack: Pack, clip: Any) -> Any:
    host = pack("nodes.host.drawing")
    vae = pack("nodes.host.tiny").load_vae(MODEL)
    return host.ComfyDrawing(clip, vae, host.KSamplerSettings("euler", "simple", 2, 3.0, 64, 64), lambda pictures: None)


def discrete(sampling: str, zsnr: bool = False) -> Callable[[Any], Any]:
    return lambda m: extras("nodes_model_advanced", "ModelSamplingDiscrete")(m, sampling, zsnr)


# Each changes how a MODEL is sampled, in a way that training follows or does not meet.
SAMPLED: dict[str, Callable[[Any], Any]] = {
    "eps": discrete("eps"),
    "v_prediction": discrete("v_prediction"),
    "zero terminal SNR": discrete("v_prediction", zsnr=True),
    "lcm": discrete("lcm"),
    "PAG": lambda m: extras("nodes_pag", "PerturbedAttentionGuidance")(m, 3.0),
    "RescaleCFG": lambda m: extras("nodes_model_advanced", "RescaleCFG")(m, 0.7),
    "compute type": lambda m: extras("nodes_model_advanced", "ModelComputeDtype")(m, "fp32"),
}


class Wrapped(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.inner(*inputs, **options)


def wrapped(model: Any) -> Any:
    place = ATTENTION.rpartition(".")[0]
    return with_call("add_object_patch", place, Wrapped(model.get_model_object(place)))(model)


# Each leaves something on the network that all clones share, once it was loaded.
LEFT: dict[str, Callable[[Any], Any]] = {
    "bypass LoRA": bypass,
    "hooks": hooked,
    "LoRA": lambda model: loaded(model, lora()),
    "weight": BESIDE["weight in place"][0],
    "value": BESIDE["value in place"][0],
    "sampling": discrete("eps"),
    "wrapped block": wrapped,
}


def sparse() -> dict[str, Tensor]:
    """A LoRA that leaves the middle of the weight alone."""
    file = lora()
    file[f"{LORA}.lora_up.weight"][60:70] = 0
    return file
