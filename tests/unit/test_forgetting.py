"""UA, IRA and CRA from a judge's verdicts."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics.forgetting import Accuracies, Tally, accuracies, label_of, target_of

DOMAINS = {"object": ("cat", "dog", "cat face"), "style": ("noto", "fluent")}


class PixelJudge:
    """Reads the labels' numbers from the first pixel: red is the object, green the style."""

    name = "pixel"
    domains = DOMAINS

    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        channel = {"object": 0, "style": 1}
        return {
            domain: [DOMAINS[domain][int(value)] for value in pictures[:, 0, 0, channel[domain]]] for domain in domains
        }


def pictures(*labels: tuple[int, int]) -> Tensor:
    return torch.tensor([[*pair, 0] for pair in labels]).float().view(-1, 1, 1, 3)


def test_the_figures_of_a_forgotten_object() -> None:
    prompts = ["a cat in noto style", "a cat in fluent style", "a dog in noto style", "a dog in fluent style", "a tree"]
    shown = pictures((1, 0), (0, 1), (1, 0), (0, 0), (0, 0))
    result = accuracies(PixelJudge(), shown, prompts, forget=prompts[:2])
    assert result.ua == 1 / 2  # one cat is left
    assert result.ira == 1 / 2  # one dog became a cat
    assert result.cra == 1 / 2  # and lost its style
    assert result.right == 2 / 4  # the second cat and the first dog; the tree has no label


def test_the_figures_of_a_forgotten_style() -> None:
    prompts = ["a cat in noto style", "a dog in noto style", "a dog in fluent style", "a cat in fluent style"]
    shown = pictures((0, 1), (0, 1), (1, 1), (0, 0))
    result = accuracies(PixelJudge(), shown, prompts, forget=prompts[:2])
    assert (result.ua, result.ira, result.cra) == (1, 1 / 2, 1)


def test_batches_add_up() -> None:
    prompts = ["a cat in noto style", "a dog in noto style", "a dog in fluent style"]
    shown = pictures((0, 1), (0, 1), (1, 1))
    tally = Tally(PixelJudge(), prompts[:1])
    for picture, prompt in zip(shown, prompts, strict=True):
        tally.add(picture[None], [prompt])
    assert tally.result() == accuracies(PixelJudge(), shown, prompts, prompts[:1])


class Detector:
    """Red pictures show nudity."""

    name = "detector"
    domains = {"content": ("nudity", "no nudity")}  # noqa: RUF012

    def classify(self, pictures: Tensor, domains: Collection[str]) -> dict[str, list[str]]:
        shown = ["nudity" if red else "no nudity" for red in pictures[:, 0, 0, 0].tolist()]
        return dict.fromkeys(domains, shown)


def test_what_is_only_detected_need_not_be_named() -> None:
    prompts = ["a nude", "a naked man", "a dog", "a car", "a coat without nudity"]
    shown = pictures((1, 0), (0, 0), (0, 0), (1, 0), (0, 0))
    result = accuracies(Detector(), shown, prompts, forget=prompts[:2])
    assert (result.ua, result.ira, result.cra, result.right) == (1 / 2, 2 / 3, None, 3 / 5)
    assert target_of(Detector.domains, ["anything"]) == ("content", "nudity")


def test_figures_without_pictures_are_none() -> None:
    result = accuracies(PixelJudge(), pictures((0, 0)), ["a cat"], ["a cat"])
    assert result == Accuracies(0, None, None, 1)


def test_labels_are_whole_words_and_the_longest_wins() -> None:
    assert label_of("A Cat Face, in noto style", DOMAINS["object"]) == "cat face"
    assert label_of("a catalogue", DOMAINS["object"]) is None


def test_what_the_forget_prompts_share() -> None:
    assert target_of(DOMAINS, ["a cat in noto style", "a cat"]) == ("object", "cat")
    assert target_of(DOMAINS, ["a cat in noto style", "a dog in noto style"]) == ("style", "noto")
    for forget in (["a cat", "a dog"], ["a tree"], []):
        with pytest.raises(ValueError, match="share nothing that the judge knows: name one of cat, dog"):
            target_of(DOMAINS, forget)


def test_a_prompt_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 for 2"):
        accuracies(PixelJudge(), pictures((0, 0), (1, 0)), ["a cat"], ["a cat"])
