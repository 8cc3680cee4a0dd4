"""Pictures that were drawn once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics.cache import PictureCache, digest
from unlearning_core.metrics.drawing import Shot

KEY = {"weights": "abc", "steps": 25}


class Painter:
    """Draws noise by seed and counts what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Shot] = []

    def __call__(self, shots: Sequence[Shot]) -> Tensor:
        self.asked += shots
        return torch.stack([torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(seed)) for _, seed in shots])


def shots(count: int) -> list[Shot]:
    return [("a frog", seed) for seed in range(count)]


def test_a_picture_is_drawn_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    painter = Painter()
    cached = PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)
    first = cached(shots(2))
    assert torch.allclose(first, Painter()(shots(2)), atol=1e-5)
    later = PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)(shots(3)[::-1])
    assert torch.equal(later.flip(0)[:2], first)
    assert painter.asked == shots(3)


@pytest.mark.parametrize("change", [{"weights": "abd"}, {"steps": 26}, {"cfg": 3.0}])
def test_another_key_is_another_picture(tmp_path: Path, change: dict[str, object]) -> None:
    painter, cache = Painter(), PictureCache(tmp_path)
    cache.drawing(lambda prompt: KEY, painter)(shots(1))
    cache.drawing(lambda prompt: {**KEY, **change}, painter)(shots(1))
    cache.drawing(lambda prompt: KEY, painter)([("A frog", 0)])
    cache.drawing(lambda prompt: {**KEY, "cond": prompt}, painter)(shots(1))
    assert len(painter.asked) == 4


def test_the_least_recently_used_pictures_make_room(tmp_path: Path) -> None:
    painter = Painter()
    PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)(shots(4))
    files = list(tmp_path.rglob("*.safetensors"))
    one = files[0].stat().st_size
    for path in files:
        os.utime(path, (1, 1))
    cached = PictureCache(tmp_path, limit=4 * one).drawing(lambda prompt: KEY, painter)
    cached(shots(1))  # used again, so the others are older
    cached([("a frog", 9)])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 4 * one
    painter.asked.clear()
    cached([("a frog", 0), ("a frog", 9)])
    assert painter.asked == []


def test_a_picture_larger_than_the_limit_is_still_given(tmp_path: Path) -> None:
    cached = PictureCache(tmp_path, limit=1).drawing(lambda prompt: KEY, Painter())
    assert cached(shots(3)).shape == (3, 8, 8, 3)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_clearing_removes_every_picture(tmp_path: Path) -> None:
    painter, cache = Painter(), PictureCache(tmp_path)
    cached = cache.drawing(lambda prompt: KEY, painter)
    cached(shots(2))
    cache.clear()
    assert not list(tmp_path.rglob("*.safetensors"))
    cached(shots(2))
    assert len(painter.asked) == 4


def test_a_damaged_file_is_drawn_again(tmp_path: Path) -> None:
    painter = Painter()
    cached = PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)
    first = cached(shots(1))
    [path] = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(cached(shots(1)), first)
    assert len(painter.asked) == 2


def test_nan_is_not_stored(tmp_path: Path) -> None:
    cached = PictureCache(tmp_path).drawing(
        lambda prompt: KEY, lambda shots: torch.full((len(shots), 8, 8, 3), torch.nan)
    )
    assert cached(shots(1)).isnan().all()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_digest_sees_every_bit() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    same = {"b": weights["b"].clone(), "a": torch.zeros(3, 2).T}
    assert digest(weights) == digest(same)
    changed = [
        {**weights, "b": weights["b"] * (1 + 2**-7)},
        {"a": weights["a"], "c": weights["b"]},
        {**weights, "a": weights["a"].half()},
        {**weights, "a": weights["a"].view(3, 2)},
    ]
    assert len({digest(weights), *map(digest, changed)}) == 5
    assert digest(weights, {}) != digest({}, weights)
