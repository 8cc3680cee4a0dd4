"""Processes that share a run: started here without a launcher, so that a test can end one of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from downloads import ROOT

from unlearning_core.hosts.families import load
from unlearning_core.launched import launched
from unlearning_core.methods import METHODS, GradientMethod
from unlearning_core.methods.ovw import Ovw
from unlearning_core.processes import current
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

PROMPTS = Prompts(("a cat face", "a cat face in noto style"), ("a dog face",), ("a frog", "a car in noto style"))
FOLDERS = [str(ROOT / name) for name in ("", "scripts", "tests/support")]
OPTIONS = {"sa": {"fisher_samples": 3}}
RELEARNED = "ovw against relearning"


def start(arguments: Sequence[str], count: int = 2) -> list[subprocess.Popen[str]]:
    """So many processes of one run of `python <arguments>`, with one thread each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                **shared,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "PYTHONPATH": os.pathsep.join(FOLDERS),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit status and what was printed to stdout and stderr, of each."""
    printed = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, printed, strict=True)]


def train_all(folder: Path, micro_batch: int = 0) -> None:
    """The patch of every method that trains so, and of OVW against relearning, as `<name>.safetensors`."""
    model = load(MODEL)
    settings = Settings(steps=3, learning_rate=0.1, width=64, height=64, runs=17, run_steps=2, batch_size=5)
    settings = replace(settings, micro_batch=micro_batch)
    methods = {name: kind(**OPTIONS.get(name, {})) for name, kind in METHODS.items()}
    methods = {name: method for name, method in methods.items() if method.in_parts or not micro_batch}
    runs = {name: (method, settings) for name, method in methods.items() if isinstance(method, GradientMethod)}
    for name, run in {**runs, RELEARNED: (Ovw(), replace(settings, relearning=2))}.items():
        patch = unlearn(model, run[0], PROMPTS, run[1])
        if current().is_main:
            patch.save(folder / f"{name}.safetensors")


def train_halves(folder: Path) -> None:
    """OVW's patch with adversaries, of batches whose halves are computed apart, as `halves.safetensors`."""
    settings = Settings(steps=3, learning_rate=1e-3, width=64, height=64, runs=2, run_steps=2, batch_size=4, wordings=2)
    settings = replace(settings, micro_batch=2, retain_ratio=2, adversaries=3)
    patch = unlearn(load(MODEL), Ovw(), PROMPTS, settings)
    if current().is_main:
        patch.save(folder / "halves.safetensors")


if __name__ == "__main__":
    out, *halves = sys.argv[1:]
    if not halves:
        # Adam divides each gradient by its own size, and so blows up what rounding leaves of those that are zero.
        torch.optim.Adam = torch.optim.SGD  # type: ignore[misc, assignment]
    with launched("cpu"):
        (train_halves if halves else train_all)(Path(out))
