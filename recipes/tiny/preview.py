"""How latents of the shipped model look at one pixel each, for ComfyUI's previews: `python -m recipes.tiny.preview`.

Prints `latent_rgb_factors` and `latent_rgb_factors_bias` of nodes/host/tiny.py: the least-squares map of a latent's
channels to the mean color, in -1..1, of the pixels that it stands for, over some of the judge's test pictures.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.tiny.pictures import drawings
from unlearning_core.tiny import MODEL

EVERY = 9  # of the pictures, one


def factors(latents: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Of latents [B, C, H, W] and their pictures [B, 3, 8 H, 8 W] in -1..1: [C, 3], and the bias [3]."""
    colors = F.adaptive_avg_pool2d(pictures, (latents.shape[-2], latents.shape[-1])).movedim(1, -1).flatten(0, -2)
    channels = latents.movedim(1, -1).flatten(0, -2)
    known = torch.cat([channels, torch.ones(len(channels), 1)], dim=1)
    solution = torch.linalg.lstsq(known, colors).solution
    return solution[:-1], solution[-1]


def pictures() -> Tensor:
    """Some of the drawings: [B, 3, SIZE, SIZE] in -1..1."""
    return torch.from_numpy(drawings()[::EVERY]).movedim(-1, 1).float() / 127.5 - 1


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(prog="python -m recipes.tiny.preview", description="Latents as colors.").parse_args()
    from diffusers import AutoencoderTiny

    vae, shown = AutoencoderTiny.from_pretrained(MODEL / "vae", torch_dtype=torch.float32), pictures()
    with torch.no_grad():
        found = factors(vae.encode(shown).latents, shown)
    for values in found:
        print((values * 10_000).round().div(10_000).tolist())


if __name__ == "__main__":
    main()
