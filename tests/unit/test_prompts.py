"""Prompts and settings: what is accepted, and what a refusal says."""

from __future__ import annotations

import pytest

from unlearning_core.methods import METHODS
from unlearning_core.model import select
from unlearning_core.prompts import Prompts, check_measured
from unlearning_core.train import Settings
from unlearning_core.unlearn import held_prompts


def test_one_overwrite_prompt_serves_all_forget_prompts() -> None:
    prompts = Prompts.parse("a cat\n\n  a kitten ", "a dog", "")
    assert prompts.pairs == (("a cat", "a dog"), ("a kitten", "a dog"))


def test_overwrite_prompts_are_paired_by_line() -> None:
    assert Prompts.parse("a\nb", "c\nd", "").pairs == (("a", "c"), ("b", "d"))


def test_empty_overwrite_box_is_the_empty_prompt() -> None:
    assert Prompts.parse("a cat", "", "").pairs == (("a cat", ""),)


def test_held_prompts_include_empty_prompt_and_targets_once() -> None:
    assert held_prompts(Prompts.parse("a cat", "a dog", "a car\na dog")) == ["a car", "a dog", ""]


@pytest.mark.parametrize(
    ("forget", "overwrite", "retain", "message"),
    [
        ("", "", "", "forget prompts: empty"),
        ("a\nb\nc", "d\ne", "", "2 lines for 3 forget prompts"),
        ("a cat", "", "A CAT", "'A CAT' is a forget prompt too"),
        ("a cat", "A cat", "", "'a cat' would be overwritten by itself"),
    ],
)
def test_bad_prompts(forget: str, overwrite: str, retain: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts.parse(forget, overwrite, retain)


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="retain prompts: empty"):
        check_measured([], ["a cat"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps: 0 is out of range; choose 1 to 100000"),
        ({"learning_rate": 2.0}, "learning_rate: 2.0 is out of range"),
        ({"rank": -1}, "rank: -1 is out of range"),
        ({"weights": "some"}, "weights: 'some' is unknown; choose one of cross_attention_kv"),
    ],
)
def test_bad_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_options_outside_their_range_are_named(method: str) -> None:
    with pytest.raises(ValueError, match=r"help_weight: -1 is out of range; choose 0.0 to 1000.0"):
        METHODS[method](help_weight=-1)


NAMES = [
    "lora_unet_down_blocks_0_resnets_0_conv1.weight",
    *(f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn{n}_to_{p}.weight" for n in (1, 2) for p in "qkv"),
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0.bias",
    "diffusion_model.double_blocks.0.txt_attn.qkv.weight",
    "diffusion_model.double_blocks.0.img_attn.qkv.weight",
    "diffusion_model.double_blocks.0.img_mlp.0.weight",
]


@pytest.mark.parametrize(
    ("selection", "parts"),
    [
        ("cross_attention_kv", ["attn2_to_k", "attn2_to_v", "txt_attn"]),
        ("cross_attention", ["attn2", "txt_attn"]),
        ("attention", ["attn1", "attn2", "txt_attn", "img_attn"]),
        ("not_cross_attention", ["conv1", "attn1", "img_attn", "img_mlp"]),
        ("all", [""]),
    ],
)
def test_selections(selection: str, parts: list[str]) -> None:
    assert select(NAMES, selection) == sorted(name for name in NAMES if any(part in name for part in parts))


def test_selection_that_a_model_lacks() -> None:
    with pytest.raises(ValueError, match="no 'cross_attention' weights; choose 'attention' or 'all'"):
        select(NAMES[:1], "cross_attention")
