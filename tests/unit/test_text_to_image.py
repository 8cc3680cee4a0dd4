"""Pipelines without a host of their own: prompts, patches and pictures, and which ones are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pipelines
import pytest
import torch
from standins import Encoder, Tokenizer
from text_to_image import COUNTERPARTS, WIDTH, flow

from unlearning_core.hosts.families import host_of
from unlearning_core.hosts.pictures import draw
from unlearning_core.hosts.text_to_image import TextToImage, text_to_image
from unlearning_core.methods import METHODS
from unlearning_core.patch import UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.sampling import Sampling
from unlearning_core.settings import Settings
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face",), ("a dog",), ("a red car in a garden",))
TEXTS = ["a cat face", "a red car in a garden", ""]


def make_sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=WIDTH,
        mlp_ratio=1,
    )
    blocks = 6
    parts = {
        "block_types": ("ResBlock",) * blocks,
        "block_out_channels": (16,) * blocks,
        "layers_per_block": (1,) * blocks,
        "qkv_multiscales": ((),) * blocks,
    }
    both = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in parts.items()}
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    vae = diffusers.AutoencoderDC(latent_channels=4, attention_head_dim=16, **both)
    return diffusers.SanaPipeline(Tokenizer(), Encoder(WIDTH), vae, transformer, scheduler)


def make_random(family: str) -> Any:
    torch.manual_seed(0)
    if family == "sana":
        return make_sana()
    return COUNTERPARTS[family].pipeline(COUNTERPARTS[family].transformer())


@pytest.fixture(scope="module")
def host(family: str) -> TextToImage:
    host = host_of(make_random(family))
    assert isinstance(host, TextToImage)
    for parameter in host.denoiser.parameters():
        if parameter.ndim >= 2:
            parameter.data *= 3**0.5  # PyTorch's own weights damp signals by that much a layer
    return host


def side(family: str) -> int:
    return COUNTERPARTS[family].side if family in COUNTERPARTS else 64


FAMILIES = [name for name in COUNTERPARTS if name != "pixart_alpha"] + ["sana"]


@pytest.mark.parametrize("family", FAMILIES, scope="module")
class TestTextToImage:
    def test_rows_predict_as_alone(self, host: TextToImage, family: str) -> None:
        """Whatever their noise levels and the sizes of their conditionings."""
        conds = host.encode(TEXTS)
        assert len(conds) == len(TEXTS)
        x, sigma = host.noise([0, 1, 2], side(family), side(family)), host.sigmas(4)[[1, 2, 1]]
        with torch.no_grad():
            together = host.predict_x0(x, sigma, conds)
            alone = [host.predict_x0(*row) for row in zip(x.split(1), sigma.split(1), zip(conds), strict=True)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("method", ["uce", "ovw"])
    def test_methods_make_patches(self, host: TextToImage, family: str, method: str) -> None:
        settings = Settings(
            steps=2,
            width=side(family),
            height=side(family),
            batch_size=2,
            runs=1,
            run_steps=2,
            weights=METHODS[method].weights,
        )
        before = {name: weight.clone() for name, weight in host.weights().items()}
        attributes = set(vars(host.pipeline))
        patch = unlearn(host, METHODS[method](), PROMPTS, settings)
        assert isinstance(patch, UnlearningPatch)
        assert all(change.isfinite().all() for change in patch.changes().values())
        assert all(torch.equal(weight, before[name]) for name, weight in host.weights().items())
        assert set(vars(host.pipeline)) == attributes

    def test_pictures(self, host: TextToImage, family: str) -> None:
        size = {"width": side(family), "height": side(family) // 2 or 32}
        pictures = draw(host, [("a cat", 0), ("a dog", 1)], replace(Sampling(steps=2), **size))
        assert pictures.shape == (2, size["height"], size["width"], 3)
        assert pictures.isfinite().all() and pictures.min() >= 0 and pictures.max() <= 1
        assert not torch.equal(pictures[0], pictures[1])

    def test_long_prompts_are_refused(self, host: TextToImage, family: str) -> None:
        with pytest.raises(ValueError, match=r"^prompt 'cat .*tokens, and the text encoder reads \d+ at most"):
            host.encode(["cat " * 1000])
