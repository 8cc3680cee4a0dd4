"""Fitting to pictures, which embeddings and weights have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bank import Source, noised_latents
from ..deltas import FUSED
from ..latents import Batch, LatentSet
from .base import Attacked


def noised_pictures(attacked: Attacked, pictures: Source) -> LatentSet:
    """The pictures at the noise levels of sampling. The network is not called."""
    sampling = attacked.task.sampling
    return noised_latents(attacked.model, pictures, sampling.steps, at_once=pictures.at_once(sampling))


def denoising_loss(attacked: Attacked, batch: Batch, conds: Sequence[object]) -> Tensor:
    """||e(x, c) - noise||^2 at the batch's latents under `conds`, as models are trained."""
    return F.mse_loss(attacked.predict(batch.x, batch.sigma, conds), batch.noise)


def fitted(
    parameters: Sequence[Tensor], loss: Callable[[], Tensor], learning_rate: float, stops: Sequence[int]
) -> Iterator[int]:
    """Lowers the loss with Adam, and stops after each of these step counts, which rise."""
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=parameters[0].device.type in FUSED)
    done = 0
    for stop in stops:
        with torch.enable_grad():
            for _ in range(stop - done):
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
        done = stop
        yield stop
