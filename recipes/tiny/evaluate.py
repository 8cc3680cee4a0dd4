"""How well the shipped model draws what it is asked: `python -m recipes.tiny.evaluate`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recipes.tiny.pictures import sheet
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.world import SIZE, STYLES, prompts

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

log = logging.getLogger(__name__)

CFG, STEPS, SEEDS = 3.0, 25, (0, 1, 2)
BATCH_SIZE = 24


def load_pipeline(folder: Path, device: str = "cpu") -> StableDiffusionPipeline:
    """The pipeline folder in fp32, with the Euler sampler."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, torch.float32)


def draw(pipeline: StableDiffusionPipeline, jobs: Sequence[tuple[str, int]]) -> Tensor:
    """The picture of each (prompt, seed): [B, SIZE, SIZE, 3] in 0..1."""
    drawn = []
    for start in range(0, len(jobs), BATCH_SIZE):
        batch = jobs[start : start + BATCH_SIZE]
        drawn.append(
            pipeline(
                [prompt for prompt, _ in batch],
                width=SIZE,
                height=SIZE,
                guidance_scale=CFG,
                num_inference_steps=STEPS,
                generator=[torch.Generator().manual_seed(seed) for _, seed in batch],
                output_type="np",
            ).images
        )
        log.info("%d of %d pictures", start + len(batch), len(jobs))
    return torch.from_numpy(np.concatenate(drawn))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="pipeline folder")
    parser.add_argument("--sheet", type=Path, help="picture of all pictures to write")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    jobs = [(prompt, seed) for prompt in prompts() for seed in SEEDS]
    pictures = draw(load_pipeline(args.model, args.device), jobs)
    asked = [prompt for prompt, _ in jobs]
    log.info("concept accuracy %.3f, style accuracy %.3f", *Judge.load().accuracy(pictures, asked))
    averaged = Judge.load(by_concept=True).accuracy(pictures, asked)
    log.info("concept accuracy %.3f with references averaged over styles", averaged.concept)
    log.info("%d prompts, seeds %s, %d px, Euler, %d steps, cfg %g", len(prompts()), SEEDS, SIZE, STEPS, CFG)
    if args.sheet:
        pixels = (pictures * 255).round().byte().numpy()
        sheet(pixels, columns=2 * len(STYLES) * len(SEEDS)).save(args.sheet)


if __name__ == "__main__":
    main()
