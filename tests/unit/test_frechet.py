"""The Fréchet distance of two sets of features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics.frechet import alexnet_features, alexnet_frechet_distance, frechet_distance
from unlearning_core.metrics.lpips import Lpips


def gaussian(count: int, mean: Tensor, spread: Tensor, seed: int = 0) -> Tensor:
    """Vectors whose sample mean and standard deviations are exactly these, and whose correlations are 0."""
    noise = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise -= noise.mean(0)
    orthogonal, _ = torch.linalg.qr(noise)
    return mean + orthogonal * (count - 1) ** 0.5 * spread


def test_the_closed_form_for_diagonal_covariances() -> None:
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    one, two = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([1.0, 1.0, 0.0]).double()
    first = gaussian(50, mean=one, spread=torch.tensor([1.0, 2.0, 3.0]).double())
    second = gaussian(80, mean=two, spread=torch.tensor([2.0, 2.0, 1.0]).double(), seed=1)
    assert frechet_distance(first, second) == pytest.approx(1 + 4 + 1 + 4, rel=1e-9)


@pytest.mark.parametrize("count", [12, 100], ids=["fewer than dimensions", "more than dimensions"])
def test_against_the_matrix_square_root(count: int) -> None:
    from scipy.linalg import sqrtm

    generator = torch.Generator().manual_seed(2)
    first = torch.randn(count, 20, generator=generator) @ torch.randn(20, 20, generator=generator)
    second = torch.randn(count + 5, 20, generator=generator) @ torch.randn(20, 20, generator=generator) + 1
    c1, c2 = (values.double().T.cov().numpy() for values in (first, second))
    shift = (first.double().mean(0) - second.double().mean(0)).square().sum().item()
    expected = shift + (c1 + c2).trace() - 2 * sqrtm(c1 @ c2).trace().real
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-5)


def test_equal_sets_are_at_zero_and_order_does_not_matter() -> None:
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(3))
    assert frechet_distance(features, features.flip(0)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + 1) == pytest.approx(8)


def test_what_is_no_feature_set_is_refused() -> None:
    good = torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"at least 2 pictures, got \[1, 3\]"):
        frechet_distance(good, good[:1])
    with pytest.raises(ValueError, match="different length: 3 and 2"):
        frechet_distance(good, good[:, :2])
    with pytest.raises(ValueError, match="a picture gave NaN"):
        frechet_distance(good, torch.full((4, 3), torch.nan))


def test_alexnet_features_see_noise_on_pictures() -> None:
    alexnet = Lpips("alex")
    generator = torch.Generator().manual_seed(4)
    pictures = torch.rand(40, 64, 64, 3, generator=generator)
    features = alexnet_features(alexnet, pictures)
    assert features.shape == (40, 256)
    # A picture alone may take other kernels than one among others: a few roundings (1e-7) of each feature.
    torch.testing.assert_close(features[5], alexnet_features(alexnet, pictures[5:6])[0], rtol=1e-5, atol=1e-5)
    near, far = (
        alexnet_frechet_distance(alexnet, pictures, torch.lerp(pictures, torch.full_like(pictures, 0.5), weight))
        for weight in (0.1, 0.5)
    )
    assert 0 < near < far
    with pytest.raises(ValueError, match="backbone alex, not squeeze"):
        alexnet_features(type("Other", (), {"backbone": "squeeze"})(), pictures)
