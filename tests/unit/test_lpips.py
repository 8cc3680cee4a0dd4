"""LPIPS against its authors' figures, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unlearning_core.metrics.backbones import BACKBONES, find_features
from unlearning_core.metrics.lpips import Lpips

DATA = Path(__file__).parents[1] / "data" / "lpips"
SHARED = [Path(__file__).parents[3] / "shared" / "data" / "perceptual"]  # beside the repository, where it is
PUBLISHED = {"alex": (0.721881, 0.137566), "vgg": (0.568613, 0.421664), "squeeze": (0.711048, 0.147902)}


@pytest.fixture(scope="module")
def alex() -> Lpips:
    return Lpips()


def example(name: str) -> Tensor:
    """[1, 64, 64, 3] in 0..1."""
    pixels = np.asarray(Image.open(DATA / f"ex_{name}.png").convert("RGB"))
    return torch.from_numpy(pixels.copy())[None].float() / 255


def examples() -> tuple[Tensor, Tensor]:
    """The authors' two pairs."""
    return example("ref").repeat(2, 1, 1, 1), torch.cat([example("p0"), example("p1")])


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_published_distances(backbone: str) -> None:
    if not find_features(backbone, SHARED):
        pytest.skip(f"{backbone}'s weights are not on this machine")
    distances = Lpips(backbone, SHARED).distance(*examples())
    assert distances.tolist() == pytest.approx(PUBLISHED[backbone], abs=1e-4)


def test_a_picture_is_at_zero_from_itself(alex: Lpips) -> None:
    reference = example("ref")
    assert alex.distance(reference, reference).tolist() == [0]
    assert alex.heat_map(reference, reference).abs().max() == 0


def test_batches_do_not_change_distances(alex: Lpips) -> None:
    a, b = (pictures.repeat(3, 1, 1, 1) for pictures in examples())
    alone = [alex.distance(*pair).item() for pair in zip(a.split(1), b.split(1), strict=True)]
    # Batches of another size may take other kernels: a few roundings (1e-7) of distances and heat below 1.
    torch.testing.assert_close(alex.distance(a, b), torch.tensor(alone), rtol=1e-6, atol=1e-6)
    heat = torch.cat([alex.heat_map(*pair) for pair in zip(a.split(4), b.split(4), strict=True)])
    torch.testing.assert_close(alex.heat_map(a, b), heat, rtol=1e-5, atol=1e-6)


def test_large_pictures_are_compared_one_by_one(alex: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = alex._net.forward

    def counting(a: Tensor, b: Tensor) -> Tensor:
        seen.append(len(a))
        result: Tensor = forward(a, b)
        return result

    monkeypatch.setattr(alex._net, "forward", counting)
    pictures = torch.rand(3, 64, 16384, 3, generator=torch.Generator().manual_seed(0))
    assert alex.distance(pictures, pictures).tolist() == [0, 0, 0]
    assert seen == [1, 1, 1]


def test_the_heat_map_shows_where(alex: Lpips) -> None:
    a = example("ref").repeat(1, 2, 2, 1)
    b = a.clone()
    b[:, 80:112, 80:112] = 1 - b[:, 80:112, 80:112]
    heat = alex.heat_map(a, b)
    assert heat.shape == (1, 128, 128)
    assert heat[0, 80:112, 80:112].mean() > 5 * heat[0, :48, :48].mean()
    assert heat.mean().item() == pytest.approx(alex.distance(a, b).item(), rel=0.1)


def test_making_the_network_draws_nothing_and_says_nothing(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    before = torch.get_rng_state()
    Lpips()
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_no_gradient_is_kept(alex: Lpips) -> None:
    a = example("ref").requires_grad_()
    assert not alex.distance(a, example("p0")).requires_grad
    assert not any(values.requires_grad for values in alex.activations(a))


def test_different_shapes_are_refused(alex: Lpips) -> None:
    with pytest.raises(ValueError, match=r"\[1, 64, 64, 3\] and \[1, 64, 48, 3\]"):
        alex.distance(torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 48, 3))


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 64, 64, 4), (0, 64, 64, 3)])
def test_what_is_no_picture_batch_is_refused(alex: Lpips, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
        alex.distance(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 255.0])
def test_values_outside_the_range_are_refused(alex: Lpips, value: float) -> None:
    bad = example("ref")
    bad[0, 3, 4, 1] = value
    with pytest.raises(ValueError, match=r"0\.\.1"):
        alex.heat_map(example("ref"), bad)


def test_the_smallest_side_is_the_smallest_that_works(alex: Lpips) -> None:
    side = BACKBONES["alex"].smallest_side
    assert alex.distance(torch.zeros(1, side, 64, 3), torch.ones(1, side, 64, 3)).item() > 0
    with pytest.raises(ValueError, match="sides of 31 pixels or more, got 64 x 30"):
        alex.distance(torch.zeros(1, side - 1, 64, 3), torch.ones(1, side - 1, 64, 3))
