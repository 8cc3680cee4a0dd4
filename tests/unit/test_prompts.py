"""Prompts and settings: what is accepted, and what a refusal says."""

from __future__ import annotations

import re
from dataclasses import Field, fields

import pytest

from unlearning_core.methods import METHODS
from unlearning_core.model import matching
from unlearning_core.prompts import (
    DEFAULT_MEASURED,
    DEFAULT_RETAIN,
    Prompts,
    check_measured,
    clashing,
    default_retain,
    held_out,
    held_prompts,
    left_out,
)
from unlearning_core.settings import Settings


def test_one_overwrite_prompt_serves_all_forget_prompts() -> None:
    prompts = Prompts.parse("a cat\n\n  a kitten ", "a dog", "")
    assert prompts.pairs == (("a cat", "a dog"), ("a kitten", "a dog"))


def test_overwrite_prompts_are_paired_by_line() -> None:
    assert Prompts.parse("a\nb", "c\nd", "").pairs == (("a", "c"), ("b", "d"))


def test_a_forget_line_may_name_its_target() -> None:
    prompts = Prompts.parse("a cat => a dog\na fox\na cow =>", "a bear", "a car")
    assert prompts.pairs == (("a cat", "a dog"), ("a fox", "a bear"), ("a cow", ""))


def test_empty_retain_box_holds_the_default_set_without_what_is_to_be_forgotten() -> None:
    retain = Prompts.parse("A photo of a dog", "", "").retain
    assert set(DEFAULT_RETAIN) - set(retain) == {"a photo of a dog"}
    assert set(DEFAULT_RETAIN) - set(default_retain(["black cats", "a painting by Vincent van Gogh"])) == {
        "a photo of a cat",
        "a black and white photograph",
    }
    assert Prompts.parse("a cat", "", "a car").retain == ("a car",)


def test_empty_overwrite_box_is_the_empty_prompt() -> None:
    assert Prompts.parse("a cat", "", "").pairs == (("a cat", ""),)


def test_held_prompts_include_empty_prompt_and_targets_once() -> None:
    assert held_prompts(Prompts.parse("a cat", "a dog", "a car\na dog")) == ["a car", "a dog", ""]


@pytest.mark.parametrize(
    ("forget", "overwrite", "retain", "message"),
    [
        ("", "", "", "forget prompts: empty"),
        ("a cat\n=> a dog", "", "", "forget prompts: empty"),
        ("a\nb\nc", "d\ne", "", "2 lines for 3 forget prompts"),
        ("a => b => c", "", "", "'a' has two '=>'"),
        ("a cat", "A cat", "", "'a cat' would be overwritten by itself"),
        ("a cat => a dog\na dog => a fox", "", "", "'a dog' is to be forgotten too"),
        ("a cat => a dog\na fox", "a bear\na cow", "", "2 lines beside forget prompts with '=>'"),
    ],
)
def test_bad_prompts(forget: str, overwrite: str, retain: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompts.parse(forget, overwrite, retain)


def test_retain_lines_that_are_forget_lines_too_are_left_out() -> None:
    assert Prompts.parse("a cat => a dog\na fox", "a bear", "A CAT\na car\na Fox").retain == ("a car",)
    assert Prompts.parse("a cat", "", "a cat").retain == default_retain(["a cat"])


def test_prompts_that_clash_are_told_and_refused_outside_text_boxes() -> None:
    assert left_out(clashing(["a cat", "a fox"], ["A CAT", "a car"])) == (
        "retain prompts: 'A CAT' left out, being a forget prompt too"
    )
    assert left_out(clashing(["a cat"], ["a car"])) == ""
    with pytest.raises(ValueError, match="'A CAT' is a forget prompt too"):
        Prompts(("a cat",), retain=("A CAT",))


def test_held_out_prompts_are_of_other_things_than_the_default_ones() -> None:
    assert held_out([], DEFAULT_RETAIN) == DEFAULT_MEASURED
    assert default_retain(DEFAULT_MEASURED) == DEFAULT_RETAIN
    assert held_out(DEFAULT_RETAIN, []) == DEFAULT_MEASURED


@pytest.mark.parametrize("prompt", DEFAULT_MEASURED)
def test_held_out_prompts_lack_what_is_forgotten_or_was_trained_on(prompt: str) -> None:
    for left in (held_out([prompt], []), held_out([], [prompt.upper()])):
        assert prompt not in left
        assert {*left} < {*DEFAULT_MEASURED}


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


OPTIONS = [(name, spec) for name, method in METHODS.items() for spec in fields(method)]


@pytest.mark.parametrize(("method", "spec"), OPTIONS, ids=[f"{name}.{spec.name}" for name, spec in OPTIONS])
def test_options_outside_their_range_are_named(method: str, spec: Field[float]) -> None:
    low, high = spec.metadata["low"], spec.metadata["high"]
    for value in (low - 1, high + 1 if high < 1e6 else high * 2):
        message = f"{spec.name}: {value} is out of range; choose {low} to {high}"
        with pytest.raises(ValueError, match=re.escape(message)):
            METHODS[method](**{spec.name: value})


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
    assert matching(NAMES, selection) == sorted(name for name in NAMES if any(part in name for part in parts))
