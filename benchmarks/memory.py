"""Memory of training on the CPU, on SDXL of true size with random weights: `python -m benchmarks.memory [--json FILE]`.

OVW at rank 8, one latent of each half a step, 512 pixels, in ComfyUI's own classes through the private copy that the
node trains. It takes 16 GB of memory and about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import in_process, machine, write_figures
from benchmarks.true_size import SIZES, StandIn, comfyui_pack, loaded, memory, random_model

NAME, SIDE, RANK = "SDXL", 512, 8
GB = 2**30
LARGE = "262144"  # bytes from which on glibc gives freed memory back, which it would count as used otherwise


def measure() -> dict[str, float]:
    """Memory above the loaded model's, at its peak, and what the node said before it began."""
    pack = comfyui_pack()

    core = {part: pack(f"unlearning_core.{part}") for part in ("methods", "prompts", "settings", "unlearn")}
    model, clip = random_model(NAME), StandIn(SIZES[NAME])
    prompts = core["prompts"].Prompts(("forget",), ("",), ("retain",))
    method = core["methods"].METHODS["ovw"]()
    settings = core["settings"].Settings(
        steps=1, rank=RANK, width=SIDE, height=SIDE, batch_size=1, runs=1, run_steps=2, weights=method.weights
    )
    unlearning, memory_of = pack("nodes.host.unlearning"), pack("nodes.host.memory")
    asked = pack("unlearning_core.prompts").all_prompts(prompts)
    before = loaded()
    with torch.inference_mode(False), torch.enable_grad(), unlearning.opened(model, clip, method) as host:
        need = memory_of.make_room(host, method, settings, asked)
        core["unlearn"].unlearn(host, method, prompts, settings)
    return {
        "loaded GB": before,
        "GB above it": memory("VmHWM") - before,
        "estimated GB": need.total / GB,
        "copy GB": need.weights / GB,
        "checkpointing": float(host.backward.checkpointing),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory of training SDXL.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--measure", action="store_true", help="in this process")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure()))
        return
    figures: dict[str, Any] = in_process("memory", "--measure", MALLOC_MMAP_THRESHOLD_=LARGE)
    print(", ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    write_figures({**figures, "machine": machine()}, args.json)


if __name__ == "__main__":
    main()
