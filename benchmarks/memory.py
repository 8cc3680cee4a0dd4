"""Memory of training on the CPU, on networks of true size with random weights: `python -m benchmarks.memory`.

OVW in ComfyUI's own classes through the private copy that the node trains, one latent of each kind a step: SDXL at rank
8 and 512 pixels, and SD1.5 at 128 pixels with protected changes, adversaries and other wordings, and against relearning
at rank 8. It takes 16 GB of memory and about twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import in_process, machine, write_figures
from benchmarks.true_size import SIZES, StandIn, comfyui_pack, loaded, memory, random_model

CASES: dict[str, dict[str, Any]] = {  # settings, by the network and what is special
    "SDXL": {"rank": 8, "width": 512, "height": 512, "weights": "cross_attention_kv"},
    "SD1.5": {
        **{"width": 128, "height": 128, "weights": "cross_attention"},
        **{"protect": 0.01, "adversaries": 8, "wordings": 2},
    },
    "SD1.5 against relearning": {
        **{"width": 128, "height": 128, "weights": "cross_attention_kv"},
        **{"rank": 8, "relearning": 2},
    },
}
GB = 2**30
LARGE = "262144"  # bytes from which on glibc gives freed memory back, which it would count as used otherwise


def measure(name: str) -> dict[str, float]:
    """Memory above the loaded model's, at its peak, and what the node said before it began."""
    pack = comfyui_pack()
    parts = ("methods", "prompts", "protection", "settings", "unlearn")
    core = {part: pack(f"unlearning_core.{part}") for part in parts}
    network, *_ = name.split()
    model, clip = random_model(network), StandIn(SIZES[network])
    prompts = core["prompts"].Prompts(("forget",), ("",), ("retain",))
    method = core["methods"].METHODS["ovw"]()
    settings = core["settings"].Settings(steps=1, batch_size=1, runs=1, run_steps=2, **CASES[name])
    unlearning, memory_of = pack("nodes.host.unlearning"), pack("nodes.host.memory")
    asked = pack("unlearning_core.prompts").all_prompts(prompts)
    before = loaded()
    with torch.inference_mode(False), torch.enable_grad(), unlearning.opened(model, clip, method) as host:
        protected = core["protection"].protected_directions(host, settings, prompts)
        need = memory_of.make_room(host, method, settings, asked, protected)
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory of training.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES], help="of these cases")
    parser.add_argument("--measure", choices=CASES, help="this one, in this process")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    figures: dict[str, Any] = {}
    for name in args.only:
        figures[name] = in_process("memory", "--measure", name, MALLOC_MMAP_THRESHOLD_=LARGE)
        print(f"{name}:", ", ".join(f"{key} {value:.2f}" for key, value in figures[name].items()))
    write_figures({**figures, "machine": machine()}, args.json)


if __name__ == "__main__":
    main()
