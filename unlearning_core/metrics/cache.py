"""Drawn pictures on disk, under everything that determines them, so that a second method costs only its own."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import remove_leftovers, write_atomically
from .plan import Draw, PromptSeed

LEVELS = 2**16 - 1  # a picture is kept in 16 bits a value, which moves LPIPS by less than 1e-8
LIMIT = 4 * 2**30  # bytes


class PictureCache:
    """A folder of pictures with a size limit; the least recently used ones go first.

    A file that is missing, damaged or of another program's making is no error: its picture is drawn again. Several
    processes may share a folder that has no limit.
    """

    def __init__(self, folder: Path, limit: float = LIMIT, at_once: int = 1) -> None:
        """`limit` in bytes. `at_once`: how many pictures share a call of a network, where their values must not depend
        on which of them were here already: of so many in a row that are asked for, all are drawn when one is missing.
        """
        self.folder = folder
        self.limit = limit
        self.at_once = at_once
        for written in {path.parent for path in folder.glob("??/.*.partial")}:
            remove_leftovers(written)
        self._size = sum(path.stat().st_size for path in self._files())

    def drawing(self, key_of: Callable[[str], Mapping[str, Any]], draw: Draw) -> Draw:
        """`draw`, asked only for pictures that are not here yet.

        `key_of` gives, for a prompt, JSON that says everything that determines its pictures besides the seed: the
        weights and the encoded prompt (see `digest`), sampler, scheduler, steps, cfg, size and precision. It is asked
        once for each prompt.
        """
        key = functools.cache(lambda prompt: json.dumps(key_of(prompt), sort_keys=True))

        def cached(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
            paths = [self._path(key(prompt), prompt, seed) for prompt, seed in prompt_seeds]
            pictures = [_read(path) for path in paths]
            missing = self._to_draw([picture is not None for picture in pictures])
            if missing:
                for index, picture in zip(missing, draw([prompt_seeds[index] for index in missing]), strict=True):
                    self._write(paths[index], picture)
                    pictures[index] = quantized(picture)
            return torch.stack([picture for picture in pictures if picture is not None])

        return cached

    def count_missing(self, key_of: Callable[[str], Mapping[str, Any]], prompt_seeds: Sequence[PromptSeed]) -> int:
        """How many of the pictures a draw that `drawing` gave with the same keys would draw, were it asked for all."""
        keys = {prompt: json.dumps(key_of(prompt), sort_keys=True) for prompt, _ in prompt_seeds}
        present = [self._path(keys[prompt], prompt, seed).exists() for prompt, seed in prompt_seeds]
        return len(self._to_draw(present))

    def clear(self) -> None:
        """Removes every picture."""
        for path in self._files():
            path.unlink(missing_ok=True)
        self._size = 0

    def _to_draw(self, present: Sequence[bool]) -> list[int]:
        """Which pictures to draw."""
        runs = [range(len(present))[start:][: self.at_once] for start in range(0, len(present), self.at_once)]
        return [index for run in runs if not all(present[each] for each in run) for index in run]

    def _path(self, key: str, prompt: str, seed: int) -> Path:
        name = hashlib.sha256(json.dumps([key, prompt, seed]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _write(self, path: Path, picture: Tensor) -> None:
        if not picture.isfinite().all():
            return  # `drawn` reports whose picture it is
        with write_atomically(path) as partial:
            save_file({"picture": _levels(picture).to(torch.uint16)}, partial)
        self._size += path.stat().st_size
        if self._size > self.limit:
            self._make_room(path)

    def _make_room(self, newest: Path) -> None:
        files = sorted(self._files(), key=lambda path: path.stat().st_mtime_ns)
        sizes = {path: path.stat().st_size for path in files}
        self._size = sum(sizes.values())
        for path in files:
            if self._size <= self.limit:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                self._size -= sizes[path]

    def _files(self) -> list[Path]:
        return list(self.folder.glob("??/*.safetensors"))


def quantized(picture: Tensor) -> Tensor:
    """What comes back of a picture in 0..1 after it was stored."""
    return _levels(picture) / LEVELS


def _levels(picture: Tensor) -> Tensor:
    return (picture.float().cpu() * LEVELS).round()


def _read(path: Path) -> Tensor | None:
    """The stored picture, now the most recently used one."""
    try:
        picture = load_file(path)["picture"]
        path.touch()
    except (OSError, SafetensorError, KeyError):
        return None
    return picture.float() / LEVELS
