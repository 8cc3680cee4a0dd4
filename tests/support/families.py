"""The smallest random-weight member of each family that ComfyUI supports, with stand-in conditioning.

Its shape is the real text encoder's, its token count the real tokenizer's. The networks' configurations are in
families.json.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch
from invented import config_class, config_of
from torch import Tensor

Conditioning = list[list[Any]]


def seeded(prompt: str, *shape: int, key: str = "") -> Tensor:
    """Random numbers that belong to a prompt."""
    seed = int.from_bytes(hashlib.sha256((key + prompt).encode()).digest()[:6], "little")
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(
    least: int, dim: int = 64, pooled: int | None = None, base: int = 0, mask: bool | str = False, **extra: Any
) -> Callable[[str], Conditioning]:
    """Makes tokens [1, T, dim] of a prompt, T at least `least`; `mask` says "padded" where padding is masked."""

    def make(prompt: str) -> Conditioning:
        own = 2 * len(prompt.split()) + 1
        count = max(least, base + own)
        more: dict[str, Any] = {"pooled_output": seeded(prompt, 1, pooled, key="p") if pooled else None}
        if mask:
            more["attention_mask"] = torch.ones(1, count, dtype=torch.long)
            if mask == "padded":
                more["attention_mask"][:, min(count, own) :] = 0
        for name, function in extra.items():
            more[name] = function(prompt, count)
        return [[seeded(prompt, 1, count, dim), more]]

    return make


def ids() -> Callable[[str], Conditioning]:
    """Makes token numbers [1, T] for a network that has the text encoder in it."""

    def make(prompt: str) -> Conditioning:
        numbers = [1 + sum(map(ord, word)) % 999 for word in ["<start>", *prompt.split(), "<picture>"]]
        return [[torch.zeros(1, 1, 1), {"text_input_ids": torch.tensor([numbers])}]]

    return make


class Family(NamedTuple):
    """A member of a family."""

    kind: str  # class in comfy.supported_models; empty for an invented one
    config: dict[str, Any]
    conditioning: Callable[[str], Conditioning]
    side: int  # pixels
    refusal: str | None = None  # what the error says of a family that cannot be trained
    state: dict[str, list[int]] | None = None  # shapes of what the class takes of a file beside the network
    parts: dict[str, dict[str, int]] | None = None  # sizes of the network's classes that its configuration does not set


def long_cat(dim: int, pooled: int, short: int, long: int) -> Callable[[str], Conditioning]:
    """One prompt longer than what the real tokenizer pads to: T5 of FLUX.1 to 256, of SD3 to 77."""

    def make(prompt: str) -> Conditioning:
        count = long if "cat" in prompt else short
        return [[seeded(prompt, 1, count, dim), {"pooled_output": seeded(prompt, 1, pooled, key="p")}]]

    return make


CONDITIONING: dict[str, Callable[[str], Conditioning]] = {
    "sd15_inpaint": text(77),
    "sd15_ip2p": text(77),
    "sdxl_inpaint": text(77, pooled=1280),
    "sdxl_refiner": text(77, pooled=1280),
    "ssd1b": text(77, pooled=1280),
    "vega": text(77, pooled=1280),
    "koala": text(77, pooled=1280),
    "koala_1b": text(77, pooled=1280),
    "cascade_c": text(77, pooled=64),
    "cascade_b": text(77, pooled=64),
    "sd35_large": text(154, pooled=64),
    "auraflow": text(256),
    "pixart_sigma": text(1),
    "pixart_alpha": text(1),
    "hunyuan_dit": text(
        77,
        mask="padded",
        conditioning_mt5xl=lambda p, t: seeded(p, 1, 256, 64, key="m"),
        attention_mask_mt5xl=lambda p, t: torch.ones(1, 256),
    ),
    "hunyuan_dit1": text(
        77,
        mask="padded",
        conditioning_mt5xl=lambda p, t: seeded(p, 1, 256, 64, key="m"),
        attention_mask_mt5xl=lambda p, t: torch.ones(1, 256),
    ),
    "flux_dev": text(256, pooled=64),
    "flux_schnell": text(256, pooled=64),
    "flux_fill": text(256, pooled=64),
    "flux_canny": text(256, pooled=64),
    "flux2_dev": text(512),
    "flux2_klein": text(512),
    "ovis": text(256),
    "longcat": text(512),
    "chroma": text(1),
    "radiance": text(1),
    "lumina2": text(1, mask=True),
    "newbie": text(1, mask=True, pooled=64),
    "z_image": text(1, mask=True, base=8),
    "hidream": text(128, pooled=64, conditioning_llama3=lambda p, t: seeded(p, 1, 2, 128, 64, key="l")),
    "hidream_o1": ids(),
    "omnigen2": text(1, mask=True, base=20),
    "kandinsky5_image": text(1, pooled=64, base=4),
    "hunyuan_image21": text(1, base=4),
    "hunyuan_image21_distilled": text(1, base=4),
    "ernie": text(1, base=4),
    "qwen_image": text(1, base=5),
    "cosmos_predict2": text(512),
    "anima": text(
        1,
        base=1,
        t5xxl_ids=lambda p, t: (seeded(p, t, key="i").abs() * 1000).long() + 1,
        t5xxl_weights=lambda p, t: torch.ones(t),
    ),
    "wan21": text(512),
    "wan22_5b": text(512),
    "ltxv": text(128, mask="padded"),
    "hunyuan_video": text(1, pooled=64, base=4, mask=True),
    "kandinsky5_video": text(1, pooled=64, base=4),
    "krea2": text(1, 384, base=4),
    "ideogram4": text(1, 64, base=4),
    "lens": text(1, 128, base=4),
    **dict.fromkeys(("sd20", "sd21_unclip", "sd21_unclip_h", "svd", "sv3d_u", "sv3d_p", "sd_x4", "lotus"), text(77)),
    "sdxl_ip2p": text(77, pooled=1280),
    "zero123": text(77, 768),
    **dict.fromkeys(("wan21_i2v", "wan21_fun_control", "wan21_camera", "wan22_camera", "wan21_vace"), text(512)),
    **dict.fromkeys(("wan21_humo", "wan22_s2v", "wan22_animate", "wan21_flow_rvs", "wan21_scail"), text(512)),
    **dict.fromkeys(("wan21_scail2", "wan22_dancer", "wan21_causal"), text(512)),
    **dict.fromkeys(("cosmos", "cosmos_i2v", "cosmos_predict2_i2v"), text(512)),
    **dict.fromkeys(("hunyuan_video_i2v", "hunyuan_video_skyreels"), text(1, pooled=64, base=4, mask=True)),
    **dict.fromkeys(("hunyuan_video15", "hunyuan_video15_sr", "hunyuan_image21_refiner"), text(1, base=4)),
    "mochi": text(256, mask="padded"),
    "ltxav": text(128, 128),
    "minimax": text(1, base=4),
    "ace": text(16, conditioning_lyrics=lambda p, t: torch.ones(1, 4, dtype=torch.long)),
    "ace15": text(16, conditioning_lyrics=lambda p, t: seeded(p, 1, 4, 64)),
    **dict.fromkeys(("stable_audio", "stable_audio3"), text(128)),
    **dict.fromkeys(("hunyuan3d", "hunyuan3d_mini", "hunyuan3d_21", "triposplat", "seedvr2"), text(16)),
    **dict.fromkeys(("rt_detr", "sam3", "sam31", "depth_anything3"), text(16)),
    "boogu": text(1, mask=True, base=20),
    "mage_flow": text(1, base=5),
    "joyimage": text(1, base=5),
    **dict.fromkeys(("pixeldit", "pid"), text(30)),
    "zimage_pixel": text(1, mask=True, base=8),
    **dict.fromkeys(("cogvideox", "cogvideox_i2v", "cogvideox_inpaint"), text(226)),
    "flux_dev_long_prompt": long_cat(64, 64, 256, 457),
    "sd35_long_prompt": long_cat(64, 64, 154, 842),
}

SIDES = {"cascade_c": 1008, "pixart_sigma": 512, "pixart_alpha": 512}  # that take no small picture
# Seeds of networks with and without frames, lists of blocks, a stream for the text and changes in place.
INVENTED = {f"invented_{seed}": seed for seed in (1, 10, 11, 15)}


def read_families() -> dict[str, Family]:
    """All of them, by name."""
    rows = json.loads(Path(__file__).with_suffix(".json").read_text())
    known = {
        name: Family(**row, conditioning=CONDITIONING[name], side=SIDES.get(name, 64)) for name, row in rows.items()
    }
    return known | {name: Family("", {"seed": seed}, text(1), 64) for name, seed in INVENTED.items()}


class StandIn:
    """In the place of a CLIP."""

    def __init__(self, conditioning: Callable[[str], Conditioning]) -> None:
        self.conditioning = conditioning

    def tokenize(self, prompt: str) -> str:
        """The prompt."""
        return prompt

    def encode_from_tokens_scheduled(self, prompt: str) -> Conditioning:
        """Its conditioning."""
        return self.conditioning(prompt)


def small_config(family: Family) -> Any:
    """ComfyUI's description of the network."""
    import comfy.supported_models

    numbers = {
        name: getattr(torch, value[6:]) for name, value in family.config.items() if f"{value}".startswith("torch.")
    }
    given = {**copy.deepcopy(family.config), **numbers}
    kind = getattr(comfy.supported_models, family.kind) if family.kind else _invented_config(given)
    config = kind(given)
    config.unet_config.update(given)  # some classes put the full size back
    config.set_inference_dtype(torch.float32, None)
    return config


def _invented_config(given: dict[str, Any]) -> Any:
    return config_of(given["network"], "SDXL", "FLOW") if "network" in given else config_class(given["seed"])


def random_model(family: Family) -> Any:
    """A MODEL on the CPU in fp32, at which signals neither vanish nor explode.

    The test is skipped when this ComfyUI does not know the family yet.
    """
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    if family.kind and not hasattr(comfy.supported_models, family.kind):
        pytest.skip(f"a family that this ComfyUI does not know yet: {family.kind}")
    config = small_config(family)
    cpu, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in (family.state or {}).items()}
    with torch.inference_mode(), ExitStack() as smaller:
        for name, sizes in (family.parts or {}).items():
            smaller.enter_context(patch(name, partial(resolve_name(name), **sizes)))
        model = config.get_model(state, device="cpu")
        for name, weight in model.diffusion_model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            unit = 1.0 if name.endswith(("weight", "scale")) else 0.0
            if weight.is_floating_point():
                weight.data = unit + 0.1 * noise if weight.ndim < 2 else noise / weight[0].numel() ** 0.5
        for name, table in model.diffusion_model.named_buffers():
            if name == "pos_embed":  # which the network leaves as it finds the memory
                table.copy_(0.1 * torch.randn(table.shape, generator=generator))
    model.diffusion_model.requires_grad_(False)
    return ModelPatcher(model, load_device=cpu, offload_device=cpu)
