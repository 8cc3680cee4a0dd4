"""Names of the real networks: which weights a selection takes, and that other tools read them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

from unlearning_core.methods.esd import Esd
from unlearning_core.methods.uce import Uce
from unlearning_core.names import transformer_name, unet_name
from unlearning_core.reads import Reads
from unlearning_core.selections import Selections
from unlearning_core.unlearn import selected

DUAL_ATTENTION = tuple(range(13))  # blocks of SD3.5 Medium that attend to the picture twice
KOHYA = re.compile(
    r"lora_unet_("
    r"conv_in|conv_out|time_embedding_linear_[12]|"
    r"(down_blocks|up_blocks)_\d_(attentions|resnets)_\d_\w+|mid_block_(attentions|resnets)_\d_\w+|"
    r"down_blocks_\d_downsamplers_0_conv|up_blocks_\d_upsamplers_0_conv"
    r")\.(weight|bias)"
)


@cache
def full_size(family: str) -> dict[str, torch.Tensor]:
    """A family's matrices by patch name, in full size and without memory."""
    sdxl: dict[str, Any] = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048,
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
    }
    with torch.device("meta"):
        network = {
            "sd15": lambda: UNet2DConditionModel(cross_attention_dim=768),
            "sdxl": lambda: UNet2DConditionModel(**sdxl),
            "sd3": lambda: SD3Transformer2DModel(
                num_layers=24, dual_attention_layers=DUAL_ATTENTION, qk_norm="rms_norm"
            ),
            "flux": FluxTransformer2DModel,
        }[family]()
    name_of = unet_name if family in ("sd15", "sdxl") else transformer_name
    return {name_of(name): weight for name, weight in network.named_parameters() if weight.ndim >= 2}


def of_weights(weights: dict[str, torch.Tensor]) -> Selections:
    """Of a model that needs no tracing, or has no layers to find so."""
    return Selections(weights, Reads)


def chosen(family: str, selection: str) -> set[str]:
    """The kinds of modules in a selection, without their numbers."""
    names = of_weights(full_size(family)).of(selection)
    return {re.sub(r"\d+", "N", name.removesuffix(".weight")) for name in names}


@pytest.mark.parametrize(
    ("family", "counts"),
    [
        # One layer a key and a value, in 16 and 70 places; 23 joint blocks and a last one; 19 double blocks.
        ("sd15", {"cross_attention_kv": 32, "cross_attention": 64, "attention": 128, "text_projections": 32}),
        ("sdxl", {"cross_attention_kv": 140, "cross_attention": 280, "attention": 560, "text_projections": 140}),
        ("sd3", {"cross_attention_kv": 48, "cross_attention": 95, "attention": 191 + 4 * 13, "text_projections": 2}),
        ("flux", {"cross_attention_kv": 38, "cross_attention": 76, "attention": 152 + 3 * 38, "text_projections": 2}),
    ],
)
def test_selections_of_the_full_size_networks(family: str, counts: dict[str, int]) -> None:
    weights = full_size(family)
    assert {selection: len(of_weights(weights).of(selection)) for selection in counts} == counts
    outside, inside = (of_weights(weights).of(part) for part in ("not_cross_attention", "cross_attention"))
    assert sorted(outside + inside) == sorted(weights) == of_weights(weights).of("all")


def test_sizes_prove_the_names_of_unets_alone() -> None:
    for family, proven in (("sd15", True), ("sdxl", True), ("sd3", False), ("flux", False)):
        assert of_weights(full_size(family)).proven is proven
    weights = dict(full_size("sd15"))
    [selves, *_] = [name for name in weights if name.endswith("attn1_to_k.weight")]
    weights[selves] = torch.empty(320, 768, device="meta")  # as in U-Nets whose attention is to the text alone
    assert not of_weights(weights).proven


def test_text_stream_of_the_transformers() -> None:
    attention = "transformer.transformer_blocks.N.attn"
    keys = {f"{attention}.add_k_proj", f"{attention}.add_v_proj"}
    for family in ("sd3", "flux"):
        assert chosen(family, "cross_attention_kv") == keys
        assert chosen(family, "cross_attention") == keys | {f"{attention}.add_q_proj", f"{attention}.to_add_out"}
    assert chosen("sd3", "text_projections") == {
        "transformer.context_embedder",
        "transformer.time_text_embed.text_embedder.linear_N",
    }
    assert chosen("flux", "text_projections") == chosen("sd3", "text_projections")


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_unet_names_are_those_that_webuis_translate(family: str) -> None:
    """A1111 and Forge know U-Nets by kohya's names."""
    attention = of_weights(full_size(family)).of("attention")
    assert attention
    assert all(KOHYA.fullmatch(name) for name in attention)


def test_closed_forms_take_weights_that_read_the_text_alone() -> None:
    unet, transformer = (of_weights(full_size(family)) for family in ("sd15", "flux"))
    assert selected(Uce(), unet, "cross_attention_kv") == selected(Uce(), unet, "text_projections")
    with pytest.raises(ValueError, match=r"weights: UCE \(closed form\) needs text_projections"):
        selected(Uce(), transformer, "cross_attention_kv")
    with pytest.raises(ValueError, match="this model has none; choose a method that trains"):
        selected(Uce(), of_weights({"some.weight": torch.empty(1, 1)}), "text_projections")


def test_missing_weights_are_answered_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"no cross_attention_kv weights; choose one of not_cross_attention, all$"):
        selected(Esd(), of_weights({"some.weight": torch.empty(1, 1)}), "cross_attention_kv")
