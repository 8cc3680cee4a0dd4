"""What has to hold of a small network in ComfyUI: each check fails where it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from families import Family, StandIn
from torch import Tensor

Pack = Callable[[str], ModuleType]
# Column of the documentation's table -> method, weights, rank.
WAYS = {
    "OVW": ("ovw", None, 0),
    "OVW, rank 4": ("ovw", "attention", 4),
    "ESD": ("esd", None, 0),
    "UCE": ("uce", None, 0),
}
TEXTS = ["a dog", "a red car in a garden"]
STEPS = [0.3 / 3**index for index in range(7)]  # of finite differences


def check_refused(pack: Pack, host: Any, family: Family) -> str:
    """By every method with one and the same sentence, before a step of training, and by the metric with it where it
    says that there are no pictures to draw. Returns the reason.
    """
    errors = set()
    for method, weights, rank in WAYS.values():
        with pytest.raises(ValueError, match=r"^model: ") as caught:
            trained(pack, host, family, method, weights, rank)
        errors.add(str(caught.value))
    if family.refusal == "makes no pictures":
        with pytest.raises(ValueError) as caught:
            check_drawing(pack, host.patcher.parent, family)
        errors.add(str(caught.value))
    [error] = errors
    assert family.refusal and family.refusal in error and "; " in error and "\n" not in error, error
    return family.refusal


def check_patches(pack: Pack, model: Any, host: Any, family: Family) -> dict[str, str]:
    """Each method gives a patch that the stock loader applies bit for bit, or says what to choose.

    Returns the weights that each trained.
    """
    import comfy.sd

    found = dict.fromkeys(WAYS, "no")
    with torch.no_grad():
        base = predicted(host, family)
    for column, (method, weights, rank) in WAYS.items():
        try:
            patch = trained_as_told(pack, host, family, method, weights, rank)
        except ValueError as error:
            assert str(error).startswith(("weights: ", "method: ", "rank: ")) and "choose" in str(error), error
            continue
        found[column] = patch.record.settings["weights"]
        with torch.inference_mode():
            ours = pack("nodes.host.patching").apply_patch(model, patch, 1.0)
            stock, _ = comfy.sd.load_lora_for_models(model, None, dict(patch.tensors), 1.0, 0.0)
        patched, loaded = (prediction(pack, each, family) for each in (ours, stock))
        assert not torch.equal(base, patched), method
        assert torch.equal(patched, loaded), method
    with torch.no_grad():
        assert torch.equal(base, predicted(host, family)), "training left something on the copy"
    assert list(found.values()).count("no") <= 1
    return found


def trained_as_told(pack: Pack, host: Any, family: Family, method: str, weights: str | None, rank: int) -> Any:
    """By the weights that are asked for, or by the first ones that the refusal names."""
    try:
        return trained(pack, host, family, method, weights, rank)
    except ValueError as error:
        told = re.match(r"weights: .*; choose one of (\w+)", str(error))
        if told is None:
            raise
        return trained(pack, host, family, method, told[1], rank)


def trained(pack: Pack, host: Any, family: Family, method: str, weights: str | None, rank: int) -> Any:
    core = {name: pack(f"unlearning_core.{name}") for name in ("methods", "prompts", "settings", "unlearn")}
    kind = core["methods"].METHODS[method]
    if issubclass(kind, core["methods"].ClosedForm) and host.resident:
        with pack("nodes.host.shared").shared_model(host.patcher.parent, host.clip) as shared:
            return trained(pack, shared, family, method, weights, rank)
    prompts = core["prompts"].Prompts(("a cat face",), ("a dog",), ("a red car in a garden",))
    settings = core["settings"].Settings(
        steps=1,
        learning_rate=1e-3,
        width=family.side,
        height=family.side,
        batch_size=2,
        runs=1,
        run_steps=2,
        rank=rank,
        weights=weights or kind.weights,
    )
    host.backward = pack("nodes.host.training").Backward()
    pack("nodes.host.memory").make_room(host, kind(), settings, core["prompts"].all_prompts(prompts))
    return core["unlearn"].unlearn(host, kind(), prompts, settings)


@contextmanager
def host_of(pack: Pack, model: Any, family: Family) -> Iterator[Any]:
    with torch.inference_mode(False), torch.enable_grad(), pack("nodes.host.private").private_copy(model) as private:
        yield pack("nodes.host.model").ComfyModel(private, StandIn(family.conditioning))


def prediction(pack: Pack, model: Any, family: Family) -> Tensor:
    with host_of(pack, model, family) as host, torch.no_grad():
        return predicted(host, family)


def predicted(host: Any, family: Family) -> Tensor:
    """x0 of two latents, at two noise levels, under two prompts."""
    x = host.noise([0, 1], family.side, family.side)
    return host.predict_x0(x, host.sigmas(4)[1:3], host.encode(TEXTS))


def check_gradients(pack: Pack, host: Any, family: Family) -> str:
    """By every matrix: against finite differences, and the same ones when blocks are checkpointed."""
    weights = host.weights()
    matrices = {name: weight for name, weight in weights.items() if weight.ndim >= 2}
    deltas = pack("unlearning_core.deltas").make_deltas(matrices, 0, 0, host.device)
    parameters = [delta.diff for delta in deltas.values()]
    with torch.no_grad():
        weighting = torch.randn(predicted(host, family).shape, generator=torch.Generator().manual_seed(5))

    def total() -> Tensor:
        """A random sum of what is predicted."""
        return (predicted(host, family).double() * weighting).sum()

    found = {}
    for checkpointing in (False, True):
        host.backward = pack("nodes.host.training").Backward(checkpointing)
        host.check_backward(deltas, family.side, family.side)
        with host.attach(deltas):
            found[checkpointing] = gradient(total(), parameters)
    plain, again = found[False], found[True]
    size = length(plain)
    assert length([one - other for one, other in zip(plain, again, strict=True)]) <= 1e-3 * size, host.backward
    with host.attach(deltas):
        check_unused(total, [one for one, by in zip(parameters, plain, strict=True) if not by.any()])
        assert abs(slope(total, parameters, [by / size for by in plain]) - size) <= 1e-3 * size, host.backward
    return "yes"


def gradient(total: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, parameters, allow_unused=True, materialize_grads=True)


def length(parts: Sequence[Tensor]) -> float:
    return sum(float(part.double().square().sum()) for part in parts) ** 0.5


@torch.no_grad()
def check_unused(total: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """What has no gradient changes nothing."""
    before = total().item()
    for parameter in parameters:
        parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(6))
    after = total().item()
    for parameter in parameters:
        parameter.zero_()
    assert before == after


@torch.no_grad()
def slope(total: Callable[[], Tensor], parameters: Sequence[Tensor], direction: Sequence[Tensor]) -> float:
    """The derivative in a direction of length 1, from finite differences alone (Ridders 1982).

    Differences are extrapolated to a step of 0. Of all extrapolations that one counts which agrees best with those it
    is made of: curvature spoils those of large steps, and rounding in fp32 those of small ones.
    """

    def at(step: float) -> float:
        for parameter, part in zip(parameters, direction, strict=True):
            parameter.copy_(step * part)
        value = total().item()
        for parameter in parameters:
            parameter.zero_()
        return value

    rows: list[list[float]] = []
    best = (math.inf, math.nan)
    for step in STEPS:
        row = [(at(step) - at(-step)) / (2 * step)]
        for order, coarser in enumerate(rows[-1] if rows else [], 1):
            row.append(row[-1] + (row[-1] - coarser) / (9**order - 1))
            best = min(best, (max(abs(row[-1] - row[-2]), abs(row[-1] - coarser)), row[-1]))
        rows.append(row)
    return best[1]


def check_drawing(pack: Pack, model: Any, family: Family) -> str:
    """The metric's pictures, of a VAE that decodes to a picture, or to frames for a model with frames."""
    host = pack("nodes.host.drawing")
    settings = host.KSamplerSettings("euler", "simple", 2, 3.0, family.side, family.side)
    drawing = host.ComfyDrawing(StandIn(family.conditioning), Decoder(family.side), settings, lambda pictures: None)
    with torch.inference_mode():
        pictures = drawing.draw(model, [(text, seed) for seed, text in enumerate(TEXTS)])
    assert pictures.shape == (len(TEXTS), family.side, family.side, 3)
    assert pictures.isfinite().all()
    return "yes"


class Decoder:
    """In the place of a VAE: the latents' means as grey."""

    def __init__(self, side: int) -> None:
        self.side = side

    def decode(self, latents: Tensor) -> Tensor:
        frames = latents.shape[2:-2]
        grey = latents.mean(dim=(1, -2, -1))
        return grey.view(len(latents), *frames, 1, 1, 1).expand(-1, *frames, self.side, self.side, 3)
