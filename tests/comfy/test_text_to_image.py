"""Pipelines without a host of their own: what they predict is what ComfyUI's networks of the same weights predict."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from text_to_image import COUNTERPARTS, Counterpart, comfy_model, make_pipeline
from torch import Tensor

from unlearning_core.deltas import make_deltas
from unlearning_core.hosts.text_to_image import TextToImage, text_to_image
from unlearning_core.methods import METHODS
from unlearning_core.model import noise_prediction
from unlearning_core.patch import UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.unlearn import unlearn

Pack = Callable[[str], ModuleType]
TEXTS = ["a cat face", "a dog face in a garden", ""]
PROMPTS = Prompts(("a cat face",), ("a dog face in a garden",), ())


@pytest.fixture(scope="module")
def counterpart(family: str) -> Counterpart:
    return COUNTERPARTS[family]


@pytest.fixture(scope="module")
def model(pack: Pack, counterpart: Counterpart) -> Any:
    return comfy_model(counterpart)


@pytest.fixture(scope="module")
def host(model: Any, counterpart: Counterpart) -> TextToImage:
    return text_to_image(make_pipeline(counterpart, model))


@contextmanager
def comfy_host(pack: Pack, model: Any, host: TextToImage, counterpart: Counterpart) -> Iterator[Any]:
    """ComfyUI's host, under the text that diffusers' encoders give."""
    with pack("nodes.host.private").private_copy(model) as private:
        opened = pack("nodes.host.model").ComfyModel(private, None)
        for prompt, [text] in zip(TEXTS, host.encode(TEXTS), strict=True):
            opened._encoded[prompt] = [counterpart.conditioning(text)]
        yield opened


def predicted(host: Any, side: int) -> Tensor:
    """Of three latents at two noise levels."""
    x, sigma = host.noise([3, 4, 5], side, side), host.sigmas(4)[[1, 2, 1]]
    return noise_prediction(host, x, sigma, host.encode(TEXTS)).flatten(1)


def weight_gradients(host: Any, side: int) -> dict[str, Tensor]:
    """Of a random sum of what is predicted, by every weight."""
    deltas = make_deltas(host.weights(), 0, 0, host.device)
    with host.attach(deltas):
        e = predicted(host, side)
        (e * torch.randn(e.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    found = {name: delta.get_parameter("diff").grad for name, delta in deltas.items()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def in_diffusers(opened: Any, counterpart: Counterpart, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ComfyUI has under its patch names, under diffusers' ones."""
    whole: dict[str, Tensor] = {}
    for name, value in parts.items():
        place = opened.places[name]
        key = place.key.removeprefix("diffusion_model.")
        weight = opened.patcher.model.get_parameter(place.key)
        whole[key] = place.apply(lambda _, value=value: value, whole.get(key, torch.zeros_like(weight)))
    return counterpart.convert(opened.patcher.model.model_config.unet_config, whole)


def known_names(model: Any) -> dict[str, Any]:
    """Where in ComfyUI's network the weights are, by their names in LoRA files."""
    import comfy.lora

    return {f"{name}.weight": target for name, target in comfy.lora.model_lora_keys_unet(model.model, {}).items()}


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.families] if name == "pixart_alpha" else []) for name in COUNTERPARTS],
    scope="module",
)
class TestTextToImage:
    def test_levels_noise_and_predictions(
        self, pack: Pack, model: Any, host: TextToImage, counterpart: Counterpart
    ) -> None:
        side = counterpart.side
        with comfy_host(pack, model, host, counterpart) as opened, torch.no_grad():
            torch.testing.assert_close(opened.sigmas(7), host.sigmas(7), rtol=1e-5, atol=0)
            noise = [each.noise([3, 4], side, side).flatten() for each in (opened, host)]
            torch.testing.assert_close(*noise, rtol=1e-5, atol=1e-5)
            ours, theirs = predicted(opened, side), predicted(host, side)
        assert theirs.std(dim=1).min() > 1e-2
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()

    def test_gradients(self, pack: Pack, model: Any, host: TextToImage, counterpart: Counterpart) -> None:
        """Of every part of a matrix that ComfyUI's LoRA loader reaches."""
        theirs = weight_gradients(host, counterpart.side)
        with comfy_host(pack, model, host, counterpart) as opened:
            found = weight_gradients(opened, counterpart.side)
            ours = in_diffusers(opened, counterpart, found)
            reached = in_diffusers(opened, counterpart, {name: torch.ones_like(part) for name, part in found.items()})
        for name in theirs:
            own, mask = (each[name.removeprefix("transformer.")].view(theirs[name].shape) for each in (ours, reached))
            assert (own - mask * theirs[name]).norm() <= 1e-4 * theirs[name].norm(), name
            assert mask.any(), name

    def test_names_are_those_of_the_same_weights(
        self, pack: Pack, model: Any, host: TextToImage, counterpart: Counterpart
    ) -> None:
        """Where ComfyUI's LoRA loader knows them, which is where a patch's layers are not lost in it."""
        known, place = known_names(model), pack("nodes.host.weights").Place
        if counterpart.named_alike:
            unlike = host.weights().keys() ^ pack("nodes.host.weights").patch_places(model).keys()
            assert all(re.search(counterpart.unknown, name) for name in unlike)
        for name, weight in host.weights().items():
            assert (name not in known) == bool(re.search(counterpart.unknown, name)), name
            if name in known:
                own = place(known[name]) if isinstance(known[name], str) else place(*known[name])
                ours = own.of(model.model.get_parameter(own.key))
                narrower = counterpart.family == "z_image" and "t_embedder" in name
                assert narrower or torch.equal(ours.flatten(), weight.flatten()), name

    def test_patch_opens_in_comfyui(
        self, pack: Pack, model: Any, host: TextToImage, counterpart: Counterpart, tmp_path: Path
    ) -> None:
        import comfy.sd
        import comfy.utils

        side = counterpart.side
        settings = Settings(
            steps=2, learning_rate=5e-2, width=side, height=side, runs=1, run_steps=2, rank=2, weights="attention"
        )
        patch = unlearn(host, METHODS["ovw"](), PROMPTS, replace(settings, batch_size=1))
        known = {name for name in patch.changes() if not re.search(counterpart.unknown, name)}
        if not known:
            pytest.skip("ComfyUI's LoRA loader knows no layer of this family by diffusers' name")
        assert known == patch.changes().keys()
        patch.save(tmp_path / "patch.safetensors")
        file = comfy.utils.load_torch_file(str(tmp_path / "patch.safetensors"), safe_load=True)
        stock, _ = comfy.sd.load_lora_for_models(model, None, file, 1.0, 0.0)
        opened_in = [stock]
        if counterpart.named_alike:
            opened_in.append(pack("nodes.host.patching").apply_patch(model, patch, 1.0))
        with torch.no_grad():
            base = predicted(host, side)
            with host.patched(UnlearningPatch.load(tmp_path / "patch.safetensors")):
                expected = predicted(host, side)
            assert (expected - base).norm() > 1e-2 * base.norm()
            for patched in opened_in:
                with comfy_host(pack, patched, host, counterpart) as opened:
                    assert (predicted(opened, side) - expected).norm() <= 1e-4 * expected.norm()
