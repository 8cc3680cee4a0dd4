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

from recipes.tiny.pictures import drawings, sheet
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.world import PLACES, SIZE, STYLES, prompts

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


@torch.no_grad()
def psnr(pipeline: StableDiffusionPipeline) -> float:
    """Of the autoencoder on drawings that it has not seen: the mean over pictures, in dB."""
    pictures = torch.from_numpy(drawings()).movedim(-1, 1).float() / 255
    decoded = pipeline.vae.decode(pipeline.vae.encode(pictures * 2 - 1).latents).sample / 2 + 0.5
    errors = (decoded.clamp(0, 1) - pictures).square().flatten(1).mean(1)
    return (-10 * errors.log10()).mean().item()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="How well the shipped model draws what it is asked.")
    parser.add_argument("--model", type=Path, default=MODEL, help="pipeline folder")
    parser.add_argument("--sheet", type=Path, help="picture of all pictures under the concepts' own names to write")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    pipeline = load_pipeline(args.model, args.device)
    log.info("autoencoder: PSNR %.2f dB on drawings that it has not seen", psnr(pipeline))
    for place in PLACES:
        jobs = [(text, seed) for text in prompts(place) for seed in SEEDS]
        pictures, texts = draw(pipeline, jobs), [text for text, _ in jobs]
        accuracy = Judge.load().accuracy(pictures, texts)
        averaged = Judge.load(by_concept=True).accuracy(pictures, texts)
        log.info(
            "name %d: concept %.4f, style %.4f; concept %.4f with references averaged over styles",
            *(place, *accuracy, averaged.concept),
        )
        if args.sheet and place == 0:
            sheet((pictures * 255).round().byte().numpy(), columns=2 * len(STYLES) * len(SEEDS)).save(args.sheet)
    log.info("%d prompts a name, seeds %s, %d px, Euler, %d steps, cfg %g", len(prompts()), SEEDS, SIZE, STEPS, CFG)


if __name__ == "__main__":
    main()
