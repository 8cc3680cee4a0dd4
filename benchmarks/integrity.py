"""What forgetting costs with each method on the shipped model: `python -m benchmarks.integrity`.

Two tasks (an object, a style) times variants times three training seeds. Writes docs/integrity.md and keeps finished
runs under .cache/integrity, so that an interrupted command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unlearning_core.hosts.diffusers import DiffusersModel
from unlearning_core.methods import METHODS
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.retention import Retention, measure
from unlearning_core.patch import UnlearningPatch
from unlearning_core.sampling import Sampling, draw
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.tasks import Task, object_task, style_task
from unlearning_core.train import Settings
from unlearning_core.unlearn import unlearn

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "unlearning_core" / "tiny" / "model"
SAMPLING = Sampling(steps=25, cfg=3.0, width=128, height=128)


@dataclass(frozen=True)
class Variant:
    """A row of the table: a method with its options and settings."""

    name: str
    method: str
    options: dict[str, float]
    weights: str
    learning_rate: float
    steps: int = 150


VARIANTS = [
    Variant("OVW", "ovw", {"help_weight": 5.0}, "cross_attention_kv", 2e-3),
    Variant("OVW without L_help", "ovw", {"help_weight": 0.0}, "cross_attention_kv", 2e-3),
    Variant("ESD-x", "esd", {}, "cross_attention", 1e-3),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each variant")
    parser.add_argument("--only", help="run the variants whose name contains this")
    parser.add_argument("--fresh", action="store_true", help="measure again what is already there")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_grad_enabled(True)
    world = World()
    variants = [variant for variant in VARIANTS if not args.only or args.only in variant.name]
    rows = [
        (task, variant, [world.cached(task, variant, seed, args.fresh) for seed in range(args.seeds)])
        for task in (object_task(), style_task())
        for variant in variants
    ]
    (ROOT / "docs" / "integrity.md").write_text(page(rows))


class World:
    """The shipped model with its judge, and base pictures drawn once."""

    def __init__(self) -> None:
        self.model = DiffusersModel.load(MODEL)
        self.lpips = Lpips("alex")
        self.judge = Judge.load(MODEL / "judge.safetensors")
        self.base: dict[tuple[str, int], torch.Tensor] = {}

    def cached(self, task: Task, variant: Variant, seed: int, fresh: bool) -> dict[str, Any]:
        path = ROOT / ".cache" / "integrity" / f"{task.name}-{variant.name}-{seed}.json".replace(" ", "_")
        if fresh or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            figures = self.run(task, variant, seed)
            path.write_text(json.dumps(figures))
        figures = json.loads(path.read_text())
        log.info("%s, %s, seed %d: %s", task.name, variant.name, seed, figures)
        return figures

    def run(self, task: Task, variant: Variant, seed: int) -> dict[str, Any]:
        began = time.monotonic()
        patch = self.train(task, variant, seed)
        seconds = time.monotonic() - began
        result = self.measure(task, patch)
        return {
            "UA": result.unlearning_accuracy,
            "I": result.integrity,
            "low": result.interval[0],
            "high": result.interval[1],
            "noise floor": result.noise_floor,
            "forget distance": result.forget_distance,
            "seconds": seconds,
        }

    def train(self, task: Task, variant: Variant, seed: int) -> UnlearningPatch:
        kind = METHODS[variant.method]
        settings = Settings(
            steps=variant.steps,
            learning_rate=variant.learning_rate,
            seed=seed,
            width=SAMPLING.width,
            height=SAMPLING.height,
            weights=variant.weights,
        )
        return unlearn(self.model, kind(**variant.options), task.prompts, settings)

    def measure(self, task: Task, patch: UnlearningPatch) -> Retention:
        result, _ = measure(
            self.draw_base,
            lambda shots: self.draw_patched(patch, shots),
            self.lpips,
            task.retain,
            task.forget,
            range(1000, 1002),
            range(1000, 1000 + task.forget_seeds),
            {"model": "tiny", **SAMPLING.settings(), "precision": "float32"},
            self.judge,
        )
        return result

    def draw_base(self, shots: Sequence[tuple[str, int]]) -> torch.Tensor:
        new = [shot for shot in shots if shot not in self.base]
        if new:
            self.base.update(zip(new, draw(self.model, new, SAMPLING), strict=True))
        return torch.stack([self.base[shot] for shot in shots])

    def draw_patched(self, patch: UnlearningPatch, shots: Sequence[tuple[str, int]]) -> torch.Tensor:
        with self.model.patched(patch):
            return draw(self.model, shots, SAMPLING)


def page(rows: Sequence[tuple[Task, Variant, list[dict[str, Any]]]]) -> str:
    """docs/integrity.md."""
    lines = [
        "# What forgetting costs",
        "",
        "Written by `python -m benchmarks.integrity` on the shipped model. Each figure is the mean over training",
        "seeds, with the lowest and highest in brackets. I: mean LPIPS (alex, 128 px, fp32) over held-out retain",
        "prompts times two seeds. UA: share of 48 forget pictures that no longer show the concept (nearest-picture",
        f"judge). Forget distance: mean LPIPS of the forget pictures. Sampling: {SAMPLING.settings()}.",
        "",
    ]
    for name in dict.fromkeys(task.name for task, _, _ in rows):
        lines += [f"## {name}", "", "| variant | UA | I | forget distance | seconds |", "|---|---|---|---|---|"]
        for task, variant, runs in rows:
            if task.name == name:
                cells = " | ".join(
                    cell([run[key] for run in runs]) for key in ("UA", "I", "forget distance", "seconds")
                )
                lines.append(f"| {variant.name} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """`mean (lowest to highest)`."""
    return f"{statistics.fmean(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
