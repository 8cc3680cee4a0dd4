"""How latents of the shipped model look at one pixel each, for ComfyUI's previews: `python -m recipes.tiny.preview`.

Prints `latent_rgb_factors` and `latent_rgb_factors_bias` of nodes/host/tiny.py: the least-squares map of a latent's
channels to the mean color, in -1..1, of the pixels that it stands for, over pictures that the model draws.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.sampling import Sampling
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.world import SIZE, prompts

SAMPLING = Sampling(steps=20, cfg=3.0, width=SIZE, height=SIZE)
EVERY = 2  # of the prompts, one


def factors(latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Of latents [B, C, H, W] and pictures [B, S*H, S*W, 3] in 0..1: [C, 3], and the bias [3]."""
    colors = F.adaptive_avg_pool2d(pictures.movedim(-1, 1) * 2 - 1, latents.shape[-2:])
    channels = latents.movedim(1, -1).flatten(0, -2)
    known = torch.cat([channels, torch.ones(len(channels), 1)], dim=1)
    solution = torch.linalg.lstsq(known, colors.movedim(1, -1).flatten(0, -2)).solution
    return solution[:-1], solution[-1]


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m recipes.tiny.preview", description="Latents as colors.").parse_args()
    model = load(MODEL)
    pictures = draw(model, [(prompt, 0) for prompt in prompts()[::EVERY]], SAMPLING)
    with torch.no_grad():
        matrix, bias = factors(model.latents(pictures).cpu(), pictures)
    print([[round(value, 4) for value in row] for row in matrix.tolist()])
    print([round(value, 4) for value in bias.tolist()])


if __name__ == "__main__":
    main()
