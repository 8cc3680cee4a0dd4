"""The integrity metric on drawn and on made-up pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.metrics.cache import PictureCache
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import CHUNK, Draw, Plan, PromptSeed, batches, check_measurable, pictures_at_once
from unlearning_core.metrics.retention import Comparison, Retention, WorstPicture, count_pictures, measure
from unlearning_core.model import matching
from unlearning_core.reports.tables import retention_page, retention_sentences
from unlearning_core.sampling import Sampling
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.world import CONCEPTS, STYLES, prompt

SAMPLING = Sampling(steps=4, cfg=3.0, width=128, height=128)
RETAIN = ["a car in noto style", "a house", "a frog in fluent style"]


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return Lpips("alex")


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


def painted(prompt_seeds: Sequence[PromptSeed], change: float = 0.0) -> Tensor:
    """A picture of noise for each prompt and seed, mixed with grey; always the same one."""
    pictures = [
        torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(seed + 1000 * len(prompt)))
        for prompt, seed in prompt_seeds
    ]
    return torch.lerp(torch.stack(pictures), torch.tensor(0.5), change)


def changed_by_seed(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
    return torch.cat([painted([prompt_seed], 0.1 * (prompt_seed[1] - 4)) for prompt_seed in prompt_seeds])


def plan(retain: Sequence[str] = RETAIN, forget: Sequence[str] = (), seeds: int = 3, forget_seeds: int = 1) -> Plan:
    return Plan.of(retain, forget, 5, seeds, forget_seeds)


PLAN = plan()


def run(
    lpips: Lpips,
    unlearned: Draw,
    base: Draw = painted,
    plan: Plan = PLAN,
    judge: Judge | None = None,
    base_again: Draw | None = None,
) -> Retention:
    return measure(base, unlearned, Comparison(lpips, plan, judge), {}, base_again or base)


def test_the_figures_follow_from_the_distances(lpips: Lpips) -> None:
    result = run(lpips, changed_by_seed, plan=plan(forget=["a cat face"], forget_seeds=2))
    distances = [value for row in result.retain for value in row.lpips]
    assert [len(row.lpips) for row in result.retain] == [3, 3, 3]
    assert result.integrity == pytest.approx(sum(distances) / 9)
    assert result.median == sorted(distances)[4]
    assert result.worst.lpips == max(distances)
    assert result.worst.seed == 7
    assert list(result.per_seed) == [5, 6, 7]
    assert result.per_seed[6] == pytest.approx(sum(row.lpips[1] for row in result.retain) / 3)
    assert result.per_seed[5] < result.per_seed[6] < result.per_seed[7]
    assert result.forget_distance == pytest.approx(sum(result.forget[0].lpips) / 2)
    ssim, psnr = result.similarity("ssim"), result.similarity("psnr")
    assert ssim is not None and 0 < ssim < 1
    assert psnr is not None and 0 < psnr < 40
    assert json.loads(json.dumps(result.summary(), allow_nan=False))["worst"]["seed"] == 7
    assert f"| worst LPIPS | {result.worst.lpips:.4f} ({result.worst.prompt}, seed 7) |" in retention_page(result)


def test_equal_pictures(lpips: Lpips) -> None:
    result = run(lpips, painted)
    assert result.integrity == result.noise_floor == 0
    assert result.similarity("ssim") == pytest.approx(1) and result.similarity("psnr") is None
    assert json.loads(json.dumps(result.summary(), allow_nan=False))["retain"][0]["psnr"] == [None, None, None]


def test_a_nan_picture_is_named(lpips: Lpips) -> None:
    def broken(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        pictures = painted(prompt_seeds)
        pictures[[prompt_seed == ("a house", 6) for prompt_seed in prompt_seeds], 0, 0] = torch.nan
        return pictures

    with pytest.raises(ValueError, match="unlearned model: its picture of 'a house' with seed 6 has NaN"):
        run(lpips, broken)
    with pytest.raises(ValueError, match="base model: its picture of 'a house' with seed 6 has NaN"):
        run(lpips, painted, base=broken)


def test_an_empty_prompt_list_is_refused() -> None:
    with pytest.raises(ValueError, match="retain prompts: empty"):
        plan(retain=[])


def test_a_prompt_that_comes_twice_counts_once() -> None:
    assert Plan.of(["a car", "a house", "A car", "a house"], ["b", "B"], 0, 1, 1).prompt_seeds == [
        ("a car", 0),
        ("a house", 0),
        ("b", 0),
    ]


def test_seeds_go_on_from_zero_after_the_last() -> None:
    last = 2**64 - 1
    assert Plan.of(["a car"], [], last, 3, 1).seeds == (last, 0, 1)


def test_prompts_with_bars_stay_in_their_cells(lpips: Lpips) -> None:
    table = retention_page(run(lpips, painted, plan=plan(retain=[r"a cat | dog \(toy\)"])))
    assert r"| retain | a cat \| dog \\(toy\\) | 0.0000 |" in table


def test_sizes_that_the_model_cannot_draw_are_refused() -> None:
    check_measurable(128, 96, multiple=8, smallest=31)
    with pytest.raises(ValueError, match="width: 100 pixels; this model draws sides that are multiples of 8"):
        check_measurable(100, 128, multiple=8, smallest=31)
    with pytest.raises(ValueError, match="height: 24 pixels; the metric needs sides of 31"):
        check_measurable(128, 24, multiple=8, smallest=31)


def test_batches_shrink_as_pictures_grow() -> None:
    sizes = [(128, 128), (256, 256), (512, 512), (1024, 512), (1024, 1024), (4096, 4096)]
    assert [pictures_at_once(*size) for size in sizes] == [16, 16, 4, 2, 1, 1]
    assert [len(batch) for batch in batches(torch.zeros(5, 1024, 512, 3))] == [2, 2, 1]


def test_pictures_pass_through_in_chunks(lpips: Lpips) -> None:
    asked: list[int] = []

    def counting(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        asked.append(len(prompt_seeds))
        return painted(prompt_seeds)

    run(lpips, counting, plan=plan(seeds=20))
    assert max(asked) == CHUNK


def test_the_judge_is_asked_about_both_models(lpips: Lpips, model: DiffusersModel) -> None:
    def base(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        return draw(model, prompt_seeds, SAMPLING)

    def unlearned(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        """The dog in place of the cat."""
        return base([(text.replace("cat face", "dog face"), seed) for text, seed in prompt_seeds])

    forget = [prompt("cat face", style) for style in STYLES]
    retain = [prompt(concept, "noto") for concept in CONCEPTS if concept != "cat face"]
    result = run(lpips, unlearned, base, plan(retain, forget, seeds=1), Judge.load())
    assert result.accuracies and result.base_accuracies
    assert result.unlearning_accuracy == 1
    assert result.base_accuracies.ua == 0
    assert result.accuracies.ira == result.base_accuracies.ira
    assert result.base_accuracies.right is not None and result.base_accuracies.right >= 0.9
    assert sum(count.votes for count in result.accuracies.counts if count.figure == "ua") == 3
    assert f"judge's own accuracy (base pictures) | {result.base_accuracies.right:.1%}" in retention_page(result)


def test_pictures_do_not_depend_on_the_batch(lpips: Lpips, model: DiffusersModel) -> None:
    """Same seed, same picture, whatever else is in the batch: 1, 3 and 7 pictures at once against all."""
    prompt_seeds = [(text, seed) for text in RETAIN for seed in range(3)]
    together = draw(model, prompt_seeds, SAMPLING)
    for size in (1, 3, 7):
        parts = torch.cat(
            [draw(model, prompt_seeds[start : start + size], SAMPLING) for start in range(0, len(prompt_seeds), size)]
        )
        assert lpips.distance(together, parts).max() <= 1e-6


def test_a_scaled_weight_moves_pictures_the_more_the_further(lpips: Lpips, model: DiffusersModel) -> None:
    """And a base against itself is at its noise floor, which is below 1e-6: on a weight drawn at random."""
    names = matching([name for name in model.weights() if name.endswith("weight")], "cross_attention")
    name = names[int(torch.randint(len(names), (), generator=torch.Generator().manual_seed(3)))]

    class Scale(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, weight: Tensor) -> Tensor:
            return weight * self.factor

    def scaled(factor: float) -> Draw:
        def draw_scaled(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
            with model.attach({name: Scale(factor)}):
                return draw(model, prompt_seeds, SAMPLING)

        return draw_scaled

    same, *moved = (run(lpips, scaled(factor), scaled(1.0), plan(seeds=2)) for factor in (1.0, 1.01, 1.1, 2.0))
    assert same.integrity <= same.noise_floor <= 1e-6
    assert same.integrity < moved[0].integrity < moved[1].integrity < moved[2].integrity


def test_count_of_drawn_pictures(lpips: Lpips, tmp_path: Path) -> None:
    asked: list[PromptSeed] = []

    def counting(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        asked.extend(prompt_seeds)
        return painted(prompt_seeds)

    cache = PictureCache(tmp_path)

    def drawing(name: str) -> Draw:
        return cache.drawing(lambda _: {"model": name}, counting)

    drawn = plan(forget=["a cat face"])
    run(lpips, drawing("other"), drawing("base"), drawn, base_again=counting)
    assert len(asked) == count_pictures(drawn)


@pytest.mark.parametrize(
    ("integrity", "words"),
    [
        (0.0, "moved by 0.000, no more than in a second run of the base (0.0e+00)."),
        (0.05, "moved by 0.050, which is hard to see: another seed moves the shipped model's pictures by 0.167."),
        (0.1, "moved by 0.100, less than another seed moves the shipped model's pictures (by 0.167)."),
        (0.2, "moved by 0.200, further than another seed moves the shipped model's pictures (by 0.167)."),
        (0.6, "moved by 0.600, as far as another prompt moves the shipped model's pictures (by 0.568)."),
    ],
)
def test_the_page_begins_with_what_the_figures_say(lpips: Lpips, integrity: float, words: str) -> None:
    result = replace(run(lpips, painted), integrity=integrity, noise_floor=0.0)
    assert retention_page(result).startswith(f"Pictures of other things {words}\n\n|")


def test_the_sentence_tells_of_the_forget_prompts(lpips: Lpips) -> None:
    asked = plan(forget=["a cat face"], forget_seeds=2)
    result = run(lpips, changed_by_seed, plan=asked)
    assert retention_sentences(result)[0] == f"Pictures of the forget prompts moved by {result.forget_distance:.3f}."
    judged = run(lpips, changed_by_seed, plan=asked, judge=Judge.load())
    assert retention_sentences(judged)[0] == f"'cat face' is gone in {judged.unlearning_accuracy:.0%} of 2 pictures."
    single = run(lpips, changed_by_seed, plan=plan(forget=["a cat face"]), judge=Judge.load())
    assert retention_sentences(single)[0].endswith(" of 1 picture.")


def test_the_sentence_tells_of_a_picture_that_became_another(lpips: Lpips) -> None:
    result = run(lpips, changed_by_seed)
    worst = WorstPicture("a car", 3, 0.3)
    told = retention_sentences(replace(result, integrity=0.05, noise_floor=0.0, worst=worst))
    assert told[-1] == "'a car' moved furthest, by 0.300: it has become another picture."
    for few in (worst._replace(lpips=0.1), worst):
        assert len(retention_sentences(replace(result, integrity=few.lpips, noise_floor=0.0, worst=few))) == 1


def test_other_backbones_are_not_compared_to_the_scale(lpips: Lpips) -> None:
    result = run(lpips, changed_by_seed)
    other = replace(result, settings={**result.settings, "LPIPS backbone": "vgg"})
    assert "shipped" in " ".join(retention_sentences(result))
    assert "shipped" not in " ".join(retention_sentences(other))
