"""Pictures that were drawn once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unlearning_core.digests import digest
from unlearning_core.metrics.cache import PictureCache
from unlearning_core.metrics.plan import PromptSeed

KEY = {"weights": "abc", "steps": 25}


class Painter:
    """Draws noise by seed and counts what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[PromptSeed] = []

    def __call__(self, prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        self.asked += prompt_seeds
        return torch.stack(
            [torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(seed)) for _, seed in prompt_seeds]
        )


def prompt_seeds(count: int) -> list[PromptSeed]:
    return [("a frog", seed) for seed in range(count)]


def test_a_picture_is_drawn_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    painter = Painter()
    cached = PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)
    first = cached(prompt_seeds(2))
    assert torch.allclose(first, Painter()(prompt_seeds(2)), atol=1e-5)
    later = PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)(prompt_seeds(3)[::-1])
    assert torch.equal(later.flip(0)[:2], first)
    assert painter.asked == prompt_seeds(3)


@pytest.mark.parametrize("change", [{"weights": "abd"}, {"steps": 26}, {"cfg": 3.0}])
def test_another_key_is_another_picture(tmp_path: Path, change: dict[str, object]) -> None:
    painter, cache = Painter(), PictureCache(tmp_path)
    cache.drawing(lambda prompt: KEY, painter)(prompt_seeds(1))
    cache.drawing(lambda prompt: {**KEY, **change}, painter)(prompt_seeds(1))
    cache.drawing(lambda prompt: KEY, painter)([("A frog", 0)])
    cache.drawing(lambda prompt: {**KEY, "cond": prompt}, painter)(prompt_seeds(1))
    assert len(painter.asked) == 4


def test_the_least_recently_used_pictures_make_room(tmp_path: Path) -> None:
    painter = Painter()
    PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)(prompt_seeds(4))
    files = list(tmp_path.rglob("*.safetensors"))
    one = files[0].stat().st_size
    for path in files:
        os.utime(path, (1, 1))
    cached = PictureCache(tmp_path, limit=4 * one).drawing(lambda prompt: KEY, painter)
    cached(prompt_seeds(1))  # used again, so the others are older
    cached([("a frog", 9)])
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 4 * one
    painter.asked.clear()
    cached([("a frog", 0), ("a frog", 9)])
    assert painter.asked == []


def test_a_picture_larger_than_the_limit_is_still_given(tmp_path: Path) -> None:
    cached = PictureCache(tmp_path, limit=1).drawing(lambda prompt: KEY, Painter())
    assert cached(prompt_seeds(3)).shape == (3, 8, 8, 3)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_clearing_removes_every_picture(tmp_path: Path) -> None:
    painter, cache = Painter(), PictureCache(tmp_path)
    cached = cache.drawing(lambda prompt: KEY, painter)
    cached(prompt_seeds(2))
    cache.clear()
    assert not list(tmp_path.rglob("*.safetensors"))
    cached(prompt_seeds(2))
    assert len(painter.asked) == 4


def test_a_damaged_file_is_drawn_again(tmp_path: Path) -> None:
    painter = Painter()
    cached = PictureCache(tmp_path).drawing(lambda prompt: KEY, painter)
    first = cached(prompt_seeds(1))
    [path] = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(cached(prompt_seeds(1)), first)
    assert len(painter.asked) == 2


def test_nan_is_not_stored(tmp_path: Path) -> None:
    cached = PictureCache(tmp_path).drawing(
        lambda prompt: KEY, lambda prompt_seeds: torch.full((len(prompt_seeds), 8, 8, 3), torch.nan)
    )
    assert cached(prompt_seeds(1)).isnan().all()
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


def test_a_new_cache_removes_what_killed_processes_left(tmp_path: Path) -> None:
    left = tmp_path / "ab" / f".picture.safetensors.{'0f' * 16}.partial"
    left.parent.mkdir()
    left.write_text("half")
    (tmp_path / "cd").write_text("no folder")
    PictureCache(tmp_path)
    assert left.exists()
    os.utime(left, (0, 0))
    PictureCache(tmp_path)
    assert not left.exists()
