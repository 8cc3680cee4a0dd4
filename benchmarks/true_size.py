"""UCE on networks of true size with random weights: `python -m benchmarks.true_size [--json FILE]`.

In ComfyUI's own classes on the CPU, with random numbers in the place of a text encoder, so that nothing is downloaded.
SDXL takes 8 GB of memory. Each measurement is a process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.processes import ROOT, in_process, in_turns, machine, medians, timed, write_figures

RETAIN = 24  # prompts, beside the forget, the overwrite and the empty one
NOISE = 1_000_003  # random numbers that all weights share; a prime, so that rows of a matrix differ
REPEATS = 5
UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
    "use_spatial_transformer": True,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {  # class in comfy.supported_models, and its network
    "SD1.5": ("SD15", UNET),
    "SDXL": (
        "SDXL",
        {
            **UNET,
            "num_res_blocks": [2, 2, 2],
            "channel_mult": [1, 2, 4],
            "transformer_depth": [0, 0, 2, 2, 10, 10],
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
            "transformer_depth_middle": 10,
            "context_dim": 2048,
            "num_heads": -1,
            "num_head_channels": 64,
            "use_linear_in_transformer": True,
            "num_classes": "sequential",
            "adm_in_channels": 2816,
        },
    ),
}
POOLED = 1280


class StandIn:
    """In the place of a CLIP: random tokens [1, 77, width] and pooled text that belong to a prompt."""

    def __init__(self, width: int) -> None:
        self.width = width

    def tokenize(self, prompt: str) -> str:
        """The prompt."""
        return prompt

    def encode_from_tokens_scheduled(self, prompt: str) -> list[Any]:
        """Its conditioning."""
        generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
        tokens, pooled = (torch.randn(1, *size, generator=generator) for size in ((77, self.width), (POOLED,)))
        return [[tokens, {"pooled_output": pooled}]]


def random_model(name: str, device: str = "cpu") -> Any:
    """A MODEL for this device, stored in fp16 on the CPU."""
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    kind, unet_config = SIZES[name]
    config = getattr(comfy.supported_models, kind)(dict(unet_config))
    config.unet_config.update(unet_config)
    config.set_inference_dtype(torch.float16, torch.float32 if device == "cpu" else None)  # as ComfyUI chooses
    noise = torch.randn(NOISE, generator=torch.Generator().manual_seed(0)).half()
    with torch.inference_mode():
        model = config.get_model({}, device="cpu")
        for weight in model.diffusion_model.parameters():
            weight.data = tiled(noise, weight.shape)
    return ModelPatcher(model, load_device=torch.device(device), offload_device=torch.device("cpu"))


def tiled(noise: Tensor, shape: torch.Size) -> Tensor:
    """The same numbers again and again, at a size that keeps signals as they are."""
    count = shape.numel()
    values = noise.repeat(-(-count // len(noise)))[:count].view(shape)
    return values / values[0].numel() ** 0.5


def measure(name: str) -> dict[str, float]:
    """One UCE patch: seconds, memory above the loaded model's, and the patch's size."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from comfyui import find_comfyui

    from benchmarks.pack_in_process import import_pack

    pack = import_pack(find_comfyui(Path(sys.executable)))
    core = {part: pack(f"unlearning_core.{part}") for part in ("methods", "prompts", "settings", "unlearn")}
    model, clip = random_model(name), StandIn(SIZES[name][1]["context_dim"])
    retain = tuple(f"retain {number}" for number in range(RETAIN))
    prompts = core["prompts"].Prompts(("forget",), ("overwrite",), retain)
    method = core["methods"].METHODS["uce"]()
    settings = core["settings"].Settings(width=512, height=512, weights=method.weights)
    unlearning = pack("nodes.host.unlearning")
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here

    def work() -> Any:
        with torch.inference_mode(False), torch.enable_grad(), unlearning.opened(model, clip, method) as host:
            return core["unlearn"].unlearn(host, method, prompts, settings)

    seconds, patch = timed(work)
    return {
        **seconds,
        "loaded GB": before,
        "GB above it": memory("VmHWM") - before,
        "patch MB": sum(tensor.nbytes for tensor in patch.tensors.values()) / 2**20,
    }


def memory(kind: str) -> float:
    """Of this process, in GB, by Linux' own count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(kind))) / 2**20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.true_size", description="UCE on networks of true size.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--measure", choices=SIZES, help="one measurement, in this process")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    runs = medians(in_turns([*SIZES], args.repeats, lambda name, _: in_process("true_size", "--measure", name)))
    for name, row in runs.items():
        print(name, ", ".join(f"{key} {value:.2f}" for key, value in row.items()))
    write_figures({"runs": runs, "repeats": args.repeats, "machine": machine()}, args.json)


if __name__ == "__main__":
    main()
