"""What measuring costs and what it sees, on the shipped model: `python -m benchmarks.metrics`. Writes docs/metrics.md.

The unlearned models are the base with one random cross-attention weight scaled. Times are processor seconds of one run,
which other programs change little: compare their ratios only.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.processes import in_process
from unlearning_core.digests import digest, tensors
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.metrics.cache import PictureCache
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.forgetting import label_of
from unlearning_core.metrics.judges import ClipJudge, DiffusionClassifier, parse_domains
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import Draw, Plan, PromptSeed, prompt_seeds_of
from unlearning_core.metrics.quality import Networks, Quality, measure_quality
from unlearning_core.metrics.retention import Comparison, Retention, measure
from unlearning_core.model import matching
from unlearning_core.reports.tables import markdown_table, settings_line
from unlearning_core.sampling import Sampling
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.world import CONCEPTS, STYLES, prompt

ROOT = Path(__file__).parents[1]
SAMPLING = Sampling(steps=25, cfg=3.0, width=128, height=128)
QUICK = Sampling(steps=2, cfg=3.0, width=128, height=128)  # for the memory, which the steps do not change
PROMPTS = [prompt(concept, list(STYLES)[index % 3]) for index, concept in enumerate(CONCEPTS)]
PLAN = Plan.of(PROMPTS, [], seed=1000, seeds=4, forget_seeds=1)
FACTORS = (1.0, 1.01, 1.1, 2.0)
COUNTS = (32, 320)
LABELS = f"a {{}}: {', '.join(CONCEPTS)}\n{{}} style: {', '.join(STYLES)}"


class Scale(nn.Module):
    """Multiplies a weight."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        """The scaled weight."""
        return weight * self.factor


class Bench:
    """The shipped model, scaled and not."""

    def __init__(self, sampling: Sampling = SAMPLING) -> None:
        self.model = load(MODEL)
        self.sampling = sampling
        self.lpips = Lpips("alex")
        self.drawing_seconds = 0.0
        names = matching([name for name in self.model.weights() if name.endswith("weight")], "cross_attention")
        self.weight = names[int(torch.randint(len(names), (), generator=torch.Generator().manual_seed(1)))]

    def scaled(self, factor: float) -> Draw:
        """Draws with the weight times a factor, and adds up the time."""

        def draw_scaled(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
            began = time.process_time()
            with self.model.attach({self.weight: Scale(factor)}):
                pictures = draw(self.model, prompt_seeds, self.sampling)
            self.drawing_seconds += time.process_time() - began
            return pictures

        return draw_scaled

    def cached(self, cache: PictureCache, factor: float) -> Draw:
        """The same through the cache, under a key of its own."""
        weights = digest(self.model.denoiser.state_dict()), digest(self.model.pipeline.vae.state_dict())
        key = {**self.sampling.settings(), "weights": weights, "factor": factor}
        return cache.drawing(
            lambda prompt: {**key, "cond": digest(tensors(self.model.encode([prompt])))}, self.scaled(factor)
        )

    def measured(self, cache: PictureCache, factor: float, plan: Plan = PLAN) -> Retention:
        """The integrity metric of the base against itself with the weight scaled."""
        base, unlearned = (self.cached(cache, scale) for scale in (1.0, factor))
        settings = {"model": "tiny", **self.sampling.settings(), "precision": "float32"}
        return measure(base, unlearned, Comparison(self.lpips, plan), settings, self.scaled(1.0))

    def quality(self, cache: PictureCache, factor: float, clip: Clip) -> Quality:
        """The same for CLIPScore and Fréchet distance."""
        base, unlearned = (self.cached(cache, scale) for scale in (1.0, factor))
        return measure_quality(base, unlearned, Networks(self.lpips, clip), PLAN, {})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "pictures", type=int, nargs="?", help="measure this process' memory on so many, and nothing else"
    )
    pictures = parser.parse_args().pictures
    if pictures:
        print(json.dumps(peak_memory(pictures)))
        return
    torch.set_num_threads(1)
    bench = Bench()
    with TemporaryDirectory() as folder:
        cache = PictureCache(Path(folder))
        speed = times(bench, cache)
        sensitivity = [row(bench, cache, factor) for factor in FACTORS]
        judges = judged(bench, cache)
    memory = {count: memory_of(count) for count in COUNTS}
    text = page(bench, speed, sensitivity, judges, memory)
    (ROOT / "docs" / "metrics.md").write_text(text, encoding="utf-8")
    print(text)


def times(bench: Bench, cache: PictureCache) -> dict[str, float]:
    """Processor seconds of a first method from an empty cache, the sampling within it, and a second method."""
    short = Plan.of(PROMPTS[:2], [], 1000, 1, 1)
    bench.measured(PictureCache(cache.folder / "warm-up"), 1.1, short)  # imports, LPIPS weights
    seconds = {}
    for name, factor in (("first", 1.1), ("second", 2.0)):
        bench.drawing_seconds = 0.0
        began = time.process_time()
        bench.measured(cache, factor)
        seconds[name] = time.process_time() - began
        seconds[f"{name} sampling"] = bench.drawing_seconds
    return seconds


def row(bench: Bench, cache: PictureCache, factor: float) -> tuple[float, Retention, Quality]:
    """What both metrics find for a factor."""
    clip = Clip.load(SHIPPED_FOLDER)
    return factor, bench.measured(cache, factor), bench.quality(cache, factor, clip)


def judged(bench: Bench, cache: PictureCache) -> dict[str, tuple[float, float]]:
    """Share of base pictures, one of each concept, whose concept and style each judge names."""
    pictures = bench.cached(cache, 1.0)(prompt_seeds_of(PROMPTS, PLAN.seeds[:1]))
    domains = parse_domains(LABELS)
    nearest, clip = Judge.load(), ClipJudge(Clip.load(SHIPPED_FOLDER), domains)
    found = {}
    for judge in (nearest, clip, DiffusionClassifier(bench.model, bench.model.latents, domains)):
        verdicts = judge.classify(pictures, list(judge.domains))
        concept, style = (
            sum(label == label_of(text, labels) for label, text in zip(verdicts[domain], PROMPTS, strict=True))
            for domain, labels in judge.domains.items()
        )
        found[judge.name] = (concept / len(PROMPTS), style / len(PROMPTS))
    return found


def memory_of(count: int) -> float:
    """Peak memory in MB of a process of its own that measures `count` pictures of each model."""
    return float(in_process("metrics", str(count)))


def peak_memory(count: int) -> float:
    """Of this process, in MB, after measuring `count` pictures of each model."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        Bench(QUICK).measured(PictureCache(Path(folder)), 1.1, Plan.of(PROMPTS[:16], [], 0, count // 16, 1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def page(
    bench: Bench,
    speed: dict[str, float],
    sensitivity: Sequence[tuple[float, Retention, Quality]],
    judges: dict[str, tuple[float, float]],
    memory: dict[int, float],
) -> str:
    """docs/metrics.md."""
    settings: dict[str, Any] = sensitivity[0][1].settings
    few, many = (memory[count] for count in COUNTS)
    lines = [
        "# What the metrics cost and detect",
        "",
        "Written by `python -m benchmarks.metrics` on the shipped model: "
        f"{len(PROMPTS)} prompts, {len(PLAN.seeds)} seeds.",
        f"Settings: {settings_line(settings)}.",
        "",
        "## Time",
        "",
        "Processor seconds on one thread, LPIPS weights loaded. Those of the metric include LPIPS, SSIM, PSNR, the",
        "noise floor, hashing of weights and prompts, cache and sheet. Bare sampling is the part that was spent on",
        "drawing the pictures, those of the noise floor included.",
        "",
        markdown_table(("", "seconds", "ratio"), time_rows(speed)),
        "",
        "## Memory",
        "",
        f"Peak of the process: {few:.0f} MB with {COUNTS[0]} pictures of each model, {many:.0f} MB with {COUNTS[1]}.",
        "",
        "## A scaled weight",
        "",
        f"`{bench.weight}` times a factor; distances are to the base. I is the integrity loss (lower is better).",
        "",
        markdown_table(
            ("factor", "I", "noise floor", "SSIM", "Fréchet (AlexNet)", "CMMD", "CLIPScore"),
            [scaled_row(factor, retention, quality) for factor, retention, quality in sensitivity],
        ),
        "",
        "## Judges on base pictures",
        "",
        f"One picture of each of {len(CONCEPTS)} concepts; share named correctly.",
        "",
        markdown_table(
            ("judge", "concept", "style"),
            [(name, f"{concept:.1%}", f"{style:.1%}") for name, (concept, style) in judges.items()],
        ),
        "",
    ]
    return "\n".join(lines)


def time_rows(speed: dict[str, float]) -> list[tuple[str, str, str]]:
    """The first table."""
    first, second, sampling = (speed[name] for name in ("first", "second", "first sampling"))
    return [
        ("bare sampling of the same pictures", f"{sampling:.1f}", "1"),
        ("the metric, empty cache", f"{first:.1f}", f"{first / sampling:.3f} of that"),
        ("a second method", f"{second:.1f}", f"{second / first:.3f} of the first"),
    ]


def scaled_row(factor: float, retention: Retention, quality: Quality) -> tuple[str, ...]:
    """A line of the table of factors."""
    return (
        f"{factor:g}",
        f"{retention.integrity:.2e}",
        f"{retention.noise_floor:.1e}",
        f"{retention.similarity('ssim'):.5f}",
        f"{quality.frechet_alexnet:.2e}",
        f"{quality.cmmd:.2e}",
        f"{quality.clip_score.unlearned:.3f}",
    )


if __name__ == "__main__":
    main()
