"""Looks into a model: gradients, predictions that are only targets, and what the prompts feed into a layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .deltas import Delta, FullDelta
from .model import DiffusionModel, check_prediction, noise_prediction
from .processes import current

if TYPE_CHECKING:
    from .latents import Batch

SAID = 500  # characters of another library's message

UNCHANGED = 1e-3  # relative difference of two predictions that are the same but for kernels

Size = tuple[int, int]  # width and height of a picture in pixels

# How networks say that they cannot take what they are given. An end that the user asked for is none of them.
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def denoising_gradients(
    model: DiffusionModel, names: Sequence[str], batches: Iterable[Batch]
) -> Iterator[dict[str, Tensor]]:
    """For each batch, the gradient of ||e(x, c) - noise||^2 by the weights `names`.

    Processes share the batches, but none is cut, so that the gradients are the same numbers in any number of processes.
    """
    weights = model.weights()
    probes = {name: FullDelta(weights[name], model.device) for name in names}

    def gradients(batch: Batch) -> dict[str, Tensor]:
        e = noise_prediction(model, batch.x, batch.sigma, batch.conds)
        loss = F.mse_loss(e, batch.noise)
        # A weight that reaches no output has the gradient zero.
        found = torch.autograd.grad(
            loss, [probe.diff for probe in probes.values()], allow_unused=True, materialize_grads=True
        )
        return dict(zip(names, found, strict=True))

    with model.attach(probes):
        yield from current().ordered(batches, gradients)


@torch.no_grad()
def overwrite_prediction(model: DiffusionModel, batch: Batch) -> Tensor:
    """What the model, as it is now, predicts at the batch's latents under the overwrite prompts: [B, C, H, W]."""
    return noise_prediction(model, batch.x, batch.sigma, batch.overwrites)


@torch.no_grad()
def small_size(model: DiffusionModel, width: int, height: int) -> Size:
    """The smallest of 1/16, 1/8, 1/4, 1/2 and 1 times a size in pixels that the model can predict at.

    Raises ValueError when there is none, for a size that the model does not draw, and as `check_prediction`.
    """
    conds, sigma = model.encode([""]), model.sigmas(1)[:1]
    model.noise([0], width, height)
    for divisor in (16, 8, 4, 2, 1):
        size = width // divisor, height // divisor
        try:
            x0 = model.predict_x0(model.noise([0], *size), sigma, conds)
        except torch.OutOfMemoryError:
            raise
        except FAILURES as error:
            failure = error
            continue
        if divisor == 1:
            check_prediction(x0)
        if x0.isfinite().all():
            return size
    raise ValueError(
        f"model: it cannot predict {width} x {height} pixels from a prompt alone ({one_line(failure)}); use the text "
        "encoder that goes with it, a size that it draws, a text-to-image model, and no LoRA or merge that breaks it"
    ) from failure


def check_reached(model: DiffusionModel, deltas: Mapping[str, Delta], prompt: str, size: Size) -> None:
    """Raises ValueError for weights that shape what the model predicts of a prompt, and to which no gradient passes.

    `deltas` are untrained; `size` is of a picture in pixels that the model draws.
    """
    x, sigma, conds = model.noise([0], *small_size(model, *size)), model.sigmas(1)[:1], model.encode([prompt])
    owners = {parameter: name for name, delta in deltas.items() for parameter in delta.parameters()}
    with model.attach(deltas):
        x0 = model.predict_x0(x, sigma, conds)
        total = x0.sum() + sum(0 * parameter.sum() for parameter in owners)  # which may have no other gradient
        gradients = torch.autograd.grad(total, list(owners))
    reached = {name for name, gradient in zip(owners.values(), gradients, strict=True) if gradient.any()}
    weights = model.weights()

    def shape(names: Iterable[str]) -> bool:
        """Whether what the model predicts depends on weights."""
        with torch.no_grad(), model.attach({name: _moved(weights[name], model.device) for name in names}):
            return not (model.predict_x0(x, sigma, conds) - x0).norm() <= UNCHANGED * x0.norm()

    rest = [name for name in deltas if name not in reached]
    if rest and shape(rest):
        name = next(name for name in rest if shape([name]))
        raise ValueError(
            f"weights: no gradient passes to {name}, which the model's predictions depend on; choose other weights, or "
            "the method UCE"
        )


def _moved(weight: Tensor, device: torch.device) -> FullDelta:
    """A random change as large as the weight."""
    delta = FullDelta(weight, device)
    size = float(weight.float().square().mean().sqrt()) + UNCHANGED
    delta.diff.data.normal_(0, size, generator=torch.Generator(device).manual_seed(0))
    return delta


def one_line(error: Exception) -> str:
    """What an error of another library says, for a message of ours."""
    return " ".join(str(error).split())[:SAID] or type(error).__name__
