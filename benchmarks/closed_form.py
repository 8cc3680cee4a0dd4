"""How long closed forms take, and how exact they are: `python -m benchmarks.closed_form [--json FILE]`.

On the shapes of Stable Diffusion 1.5's text layers, with random weights and tokens, so that it needs no download. Each
measurement is a process of its own; counts of concepts take turns.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.processes import in_process, in_turns, machine, medians, timed, write_figures
from unlearning_core.changes import weight_changes
from unlearning_core.methods import METHODS, ClosedForm
from unlearning_core.methods.uce import Uce
from unlearning_core.progress import Reporter
from unlearning_core.prompts import Prompts
from unlearning_core.solve import solve

WIDTH, TOKENS = 768, 77
ROWS = {320: 10, 640: 10, 1280: 12}  # of keys and values: how many matrices have so many rows
COUNTS = (1, 10, 100, 1000, 2000)
METHODS_MEASURED = ("uce", "nullspace")
REPEATS = 5
CHECKED = 4  # matrices that are compared with the formula


class TextLayers:
    """A `DiffusionModel` of text layers alone; a prompt's tokens are random numbers that belong to it."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.layers: dict[str, nn.Linear] = {}
        for rows, count in ROWS.items():
            for index in range(count):
                layer = nn.Linear(WIDTH, rows, bias=False)
                layer.weight.data = torch.randn(rows, WIDTH, generator=generator) / WIDTH**0.5
                self.layers[
                    f"lora_unet_down_blocks_{index}_attentions_0_transformer_blocks_{rows}_attn2_to_k.weight"
                ] = layer

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """Tokens [1, TOKENS, WIDTH], of which all prompts share the first."""
        return [self._tokens(prompt) for prompt in prompts]

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Tensor]) -> Tensor:
        """Asks every layer."""
        for layer in self.layers.values():
            layer(conds[0])
        return x

    def sigmas(self, steps: int) -> Tensor:
        """Any."""
        return torch.linspace(1, 0, steps + 1)

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        """Any."""
        return torch.zeros(len(seeds), 4, height // 8, width // 8)

    def weights(self) -> dict[str, Tensor]:
        """Of the layers."""
        return {name: layer.weight.detach() for name, layer in self.layers.items()}

    def module(self, name: str) -> nn.Module:
        """The layer."""
        return self.layers[name]

    def _tokens(self, prompt: str) -> Tensor:
        seed = int.from_bytes(sha256(prompt.encode()).digest()[:6], "little")
        tokens = torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))
        tokens[:, 0] = 1.0
        return tokens


def prompts_of(count: int) -> Prompts:
    """So many concepts with one target, as when artists become an artist."""
    numbers = range(count)
    return Prompts(tuple(f"f{n}" for n in numbers), ("o",), ("r0", "r1", "r2"))


def measure(method: str, count: int) -> dict[str, float]:
    """Wall and processor seconds of one solution, and the process's peak memory above what it had before."""
    model: Any = TextLayers()
    kind = METHODS[method]
    assert issubclass(kind, ClosedForm)
    solver, prompts = kind(), prompts_of(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, tensors = timed(lambda: solve(model, solver, prompts, list(model.layers), (64, 64), Reporter()))
    return {
        **seconds,
        "peak MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "patch MB": sum(tensor.nbytes for tensor in tensors.values()) / 2**20,
    }


def largest_error(method: str, count: int) -> float:
    """Of the change of some matrices, relative to the formula multiplied out token by token in float64."""
    model: Any = TextLayers()
    prompts = prompts_of(count)
    solver: Any = METHODS[method]()
    changes = weight_changes(solve(model, solver, prompts, list(model.layers), (64, 64), Reporter()))
    forget, overwrite = (
        torch.cat([model.encode([text])[0][0].double() for text in texts]) for texts in zip(*prompts.pairs, strict=True)
    )
    held = torch.cat([model.encode([text])[0][0].double() for text in (*prompts.retain, "", *prompts.overwrite)])
    errors = []
    for name in list(model.layers)[:CHECKED]:
        expected = reference(solver, model.weights()[name].double(), forget, overwrite, held)
        errors.append(float((changes[name].double() - expected).norm() / expected.norm()))
    return max(errors)


def reference(solver: Any, weight: Tensor, forget: Tensor, overwrite: Tensor, held: Tensor) -> Tensor:
    """W* - W by the methods' equations, with an explicit inverse: for tokens in rows, and a weight [out, D]."""
    moved = weight @ (overwrite - forget).T @ forget
    eye = torch.eye(WIDTH, dtype=torch.float64)
    if isinstance(solver, Uce):
        return moved @ torch.linalg.inv(forget.T @ forget + solver.retain_weight * held.T @ held + solver.ridge * eye)
    squares, directions = torch.linalg.eigh(held.T @ held)
    empty = directions[:, squares <= solver.tolerance**2 * squares[-1]]
    inverse = torch.linalg.inv(empty.T @ forget.T @ forget @ empty + solver.ridge * torch.eye(empty.shape[1]).double())
    return moved @ empty @ inverse @ empty.T


def summary(repeats: int) -> dict[str, Any]:
    """All figures."""
    cases = [(method, count) for method in METHODS_MEASURED for count in COUNTS]
    found = medians(in_turns(cases, repeats, lambda case, _: in_process("closed_form", "--measure", *map(str, case))))
    runs = {method: {count: found[method, count] for count in COUNTS} for method in METHODS_MEASURED}
    errors = {method: largest_error(method, 100) for method in METHODS_MEASURED}
    return {
        "seconds_100": max(run[100]["seconds"] for run in runs.values()),
        "seconds_2000": max(run[2000]["seconds"] for run in runs.values()),
        "max_relative_error": max(errors.values()),
        "peak_mb_ratio": max(run[2000]["peak MB"] / run[100]["peak MB"] for run in runs.values()),
        "errors": errors,
        "runs": runs,
        "repeats": repeats,
        "machine": machine(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.closed_form", description="Closed forms at scale.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "CONCEPTS"), help="one measurement, in this process")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]))))
        return
    figures = summary(args.repeats)
    print("method     concepts  seconds processor ms/concept  peak MB patch MB")
    for method, run in figures["runs"].items():
        for count, row in run.items():
            print(
                f"{method:10} {count:8} {row['seconds']:8.2f} {row['processor seconds']:9.2f} "
                f"{1000 * row['seconds'] / count:10.1f} {row['peak MB']:8.0f} {row['patch MB']:8.1f}"
            )
    print(f"largest relative error at 100 concepts {figures['max_relative_error']:.1e}; {figures['machine']}")
    write_figures(figures, args.json)


if __name__ == "__main__":
    main()
