"""Small random networks of every family that ComfyUI supports: trained, or refused by name before work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
import torch
from families import Family, StandIn, random_model, read_families
from torch import Tensor

Pack = Callable[[str], ModuleType]
FAMILIES = read_families()
FAST = ("z_image", "qwen_image", "ltxv", "flux_dev_long_prompt", "cascade_c")  # each for a mechanism of its own
WAYS = [("ovw", None, 0), ("ovw", "attention", 4), ("esd", None, 0), ("uce", None, 0)]  # method, weights, rank
TEXTS = ["a dog", "a red car in a garden"]
STEPS = (0.3, 0.1, 0.03, 0.01)  # of finite differences in fp32: curvature limits large ones, rounding small ones


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.families]) for name in FAMILIES]
)
def test_family(pack: Pack, name: str) -> None:
    family = FAMILIES[name]
    model = supported(family)
    before = {key: weight.clone() for key, weight in model.model.named_parameters()}
    check_patches(pack, model, family)
    check_gradients(pack, model, family)
    check_drawing(pack, model, family)
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.named_parameters())


def supported(family: Family) -> Any:
    import comfy.supported_models

    if not hasattr(comfy.supported_models, family.kind):
        pytest.skip("a family that this ComfyUI does not know yet")
    return random_model(family)


def check_patches(pack: Pack, model: Any, family: Family) -> None:
    """Each method gives a patch that the stock loader applies bit for bit, or says what to choose."""
    import comfy.sd

    made = 0
    for method, weights, rank in WAYS:
        try:
            patch = trained(pack, model, family, method, weights, rank)
        except ValueError as error:
            assert str(error).startswith(("weights: ", "method: ", "rank: ")) and "choose" in str(error), error
            continue
        made += 1
        with torch.inference_mode():
            ours = pack("nodes.host.patching").apply_patch(model, patch, 1.0)
            stock, _ = comfy.sd.load_lora_for_models(model, None, dict(patch.tensors), 1.0, 0.0)
        base, patched, loaded = (prediction(pack, each, family) for each in (model, ours, stock))
        assert not torch.equal(base, patched), method
        assert torch.equal(patched, loaded), method
    assert made >= 3


def trained(pack: Pack, model: Any, family: Family, method: str, weights: str | None, rank: int) -> Any:
    core = {name: pack(f"unlearning_core.{name}") for name in ("methods", "prompts", "settings", "unlearn")}
    kind = core["methods"].METHODS[method]
    prompts = core["prompts"].Prompts(("a cat face",), ("a dog",), ("a red car in a garden",))
    settings = core["settings"].Settings(
        steps=1,
        learning_rate=1e-3,
        width=family.side,
        height=family.side,
        batch_size=2,
        runs=2,
        run_steps=2,
        rank=rank,
        weights=weights or kind.weights,
    )
    with host_of(pack, model, family) as host:
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


def check_gradients(pack: Pack, model: Any, family: Family) -> None:
    """By every matrix, plain and checkpointed, along the gradient itself."""
    with host_of(pack, model, family) as host:
        weights = host.weights()
        matrices = {name: weight for name, weight in weights.items() if weight.ndim >= 2}
        deltas = pack("unlearning_core.deltas").make_deltas(matrices, 0, 0, host.device)
        for host.backward.checkpointing in (False, True):
            host.check_backward(deltas, family.side, family.side)
            with host.attach(deltas):
                assert off_by(deltas, lambda: predicted(host, family)) <= 1e-3, host.backward


def off_by(deltas: Mapping[str, Any], output: Callable[[], Tensor]) -> float:
    """The relative error of the gradient of a random sum of outputs, by the best of some finite differences."""
    weighting = torch.randn(output().shape, generator=torch.Generator().manual_seed(5))
    parameters = [delta.diff for delta in deltas.values()]

    def total() -> Tensor:
        return (output().double() * weighting).sum()

    gradients = torch.autograd.grad(total(), parameters, allow_unused=True, materialize_grads=True)
    size = sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5

    @torch.no_grad()
    def moved(step: float) -> float:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.copy_(gradient * (step / size))
        value = total().item()
        for parameter in parameters:
            parameter.zero_()
        return value

    return min(abs((moved(step) - moved(-step)) / (2 * step) - size) / size for step in STEPS)


def check_drawing(pack: Pack, model: Any, family: Family) -> None:
    """The metric's pictures, of a VAE that decodes to a picture, or to frames for a model with frames."""
    host = pack("nodes.host.drawing")
    settings = host.KSamplerSettings("euler", "simple", 2, 3.0, family.side, family.side)
    drawing = host.ComfyDrawing(StandIn(family.conditioning), Decoder(family.side), settings, lambda pictures: None)
    with torch.inference_mode():
        pictures = drawing.draw(model, [(text, seed) for seed, text in enumerate(TEXTS)])
    assert pictures.shape == (len(TEXTS), family.side, family.side, 3)
    assert pictures.isfinite().all()


class Decoder:
    """In the place of a VAE: the latents' means as grey."""

    def __init__(self, side: int) -> None:
        self.side = side

    def decode(self, latents: Tensor) -> Tensor:
        frames = latents.shape[2:-2]
        grey = latents.mean(dim=(1, -2, -1))
        return grey.view(len(latents), *frames, 1, 1, 1).expand(-1, *frames, self.side, self.side, 3)
