"""What a long comparison keeps: finished parts on disk, drawn pictures, and the memory that it took at most."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from unlearning_core.metrics.plan import Draw, PromptSeed

CACHE = Path(__file__).parent / "measured"  # in the repository, so that a long comparison may be made in parts


def kept(name: str, made_with: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gave, from the cache when it was made with the same."""
    path = CACHE / f"{name.replace(' ', '_')}-{sha256(made_with.encode()).hexdigest()[:8]}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_file = path.with_suffix(".partial")
        partial_file.write_text(json.dumps(make()))
        partial_file.replace(path)
    return json.loads(path.read_text())


def remembered(draw: Draw) -> Draw:
    """Draws each picture once."""
    pictures: dict[PromptSeed, Tensor] = {}

    def drawing(prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        if new := [prompt_seed for prompt_seed in dict.fromkeys(prompt_seeds) if prompt_seed not in pictures]:
            pictures.update(zip(new, draw(new), strict=True))
        return torch.stack([pictures[prompt_seed] for prompt_seed in prompt_seeds])

    return drawing


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Within the context, the process's memory above what it had before, filled in at the end as `peak MB`."""
    process = psutil.Process()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # else memory that earlier work has freed counts as the process's own
    before = highest = process.memory_info().rss
    figures: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.02):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield figures
    finally:
        done.set()
        watcher.join()
        figures["peak MB"] = (highest - before) / 1e6
