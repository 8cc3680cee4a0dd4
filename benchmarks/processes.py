"""Measurements that need a process of their own."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from tqdm import tqdm

from unlearning_core.processes import current

Case = TypeVar("Case")
Figures = TypeVar("Figures")

ROOT = Path(__file__).parents[1]
LAUNCH = (  # several processes on one machine, on CPUs too
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines=1"),
    *("--mixed_precision=no", "--dynamo_backend=no"),
)


def in_process(benchmark: str, *arguments: str, **environment: str) -> Any:
    """What `python -m benchmarks.<benchmark> <arguments>` prints as JSON on its last line."""
    return _printed([sys.executable, "-m", f"benchmarks.{benchmark}", *arguments], environment)


def in_processes(count: int, benchmark: str, *arguments: str) -> Any:
    """As `in_process`, of so many processes with one thread each, that share the run where there are several."""
    launcher = [*LAUNCH, f"--num_processes={count}"] if count > 1 else [sys.executable]
    return _printed([*launcher, "-m", f"benchmarks.{benchmark}", *arguments], {"OMP_NUM_THREADS": "1"})


def _printed(command: Sequence[str], environment: Mapping[str, str]) -> Any:
    run = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    return json.loads(run.stdout.splitlines()[-1])


class Counter:
    """Calls of networks, and the samples in them."""

    def __init__(self, *networks: nn.Module) -> None:
        self.calls = self.samples = 0
        for network in networks:
            network.register_forward_pre_hook(self._count)

    def figures(self) -> dict[str, float]:
        """What it counted so far."""
        return {"calls": self.calls, "samples": self.samples}

    def _count(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.calls += 1
        self.samples += len(inputs[0])


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds until all processes have ended, those that this one's processor computed, and what the work gave."""
    current().wait()
    begun, processor = time.perf_counter(), time.process_time()
    found = work()
    computed = time.process_time() - processor
    current().wait()
    return {"seconds": time.perf_counter() - begun, "processor seconds": computed}, found


def in_turns(cases: Sequence[Case], repeats: int, measure: Callable[[Case, int], Figures]) -> list[dict[Case, Figures]]:
    """What `measure` gives of each case and number of a round; a terminal shows how many it has measured."""
    rounds: list[dict[Case, Figures]] = [{} for _ in range(repeats)]
    turns = [(number, case) for number in range(repeats) for case in cases]
    for number, case in tqdm(turns, desc="measuring", unit="case", disable=None):
        rounds[number][case] = measure(case, number)
    return rounds


def medians(rounds: Sequence[Mapping[Any, Mapping[str, float]]]) -> dict[Any, dict[str, float]]:
    """Of each figure of each case over the rounds."""
    return {
        case: {key: statistics.median(one[case][key] for one in rounds) for key in figures}
        for case, figures in rounds[0].items()
    }


def machine() -> str:
    """What it was measured on."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"


def write_figures(figures: Mapping[str, Any], path: Path | None) -> None:
    """As JSON, where a file is asked for."""
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
