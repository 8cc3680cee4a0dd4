"""UCE on networks of true size with random weights: `python -m benchmarks.true_size [--json FILE]`.

In ComfyUI's own classes on the CPU, with random numbers in the place of a text encoder, so that nothing is downloaded.
SDXL takes 8 GB of memory. Of FLUX.1 a few blocks are measured, from which the memory of all is told. Each measurement
is a process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.processes import ROOT, in_process, in_turns, machine, medians, timed, write_figures

RETAIN = 24  # prompts, beside the forget, the overwrite and the empty one
NOISE = 1_000_003  # random numbers that all weights share; a prime, so that rows of a matrix differ
REPEATS = 5
FLUX_BLOCKS = 38  # single ones; there are 19 double ones
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
FLUX: dict[str, Any] = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "hidden_size": 3072,
    "num_heads": 24,
    "axes_dim": [16, 56, 56],
    "mlp_ratio": 4.0,
    "theta": 10000,
    "qkv_bias": True,
    "txt_ids_dims": [],
    "context_in_dim": 4096,
    "vec_in_dim": 768,
    "guidance_embed": True,
    "yak_mlp": False,
    "txt_norm": False,
}


class Size(NamedTuple):
    """A network of true size: its class in comfy.supported_models, its configuration, and what it reads of a text."""

    kind: str
    config: dict[str, Any]
    width: int  # of a token
    pooled: int


def flux(blocks: int) -> Size:
    """FLUX.1's layout with so many double and so many single blocks."""
    return Size("Flux", {**FLUX, "depth": blocks, "depth_single_blocks": blocks}, 4096, 768)


SIZES = {
    "SD1.5": Size("SD15", UNET, 768, 768),
    "SDXL": Size(
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
        2048,
        1280,
    ),
    "FLUX.1, 1 + 1 blocks": flux(1),
    "FLUX.1, 2 + 2 blocks": flux(2),
}


class StandIn:
    """In the place of a CLIP: random tokens [1, 77, width] and pooled text [1, pooled] that belong to a prompt."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.tokenizer = SimpleNamespace()  # it has no words

    def tokenize(self, prompt: str) -> str:
        """The prompt."""
        return prompt

    def encode_from_tokens_scheduled(self, prompt: str) -> list[Any]:
        """Its conditioning."""
        generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
        tokens, pooled = (
            torch.randn(1, *shape, generator=generator) for shape in ((77, self.size.width), (self.size.pooled,))
        )
        return [[tokens, {"pooled_output": pooled}]]


def random_model(name: str, device: str = "cpu") -> Any:
    """A MODEL for this device, stored in fp16 on the CPU."""
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    size = SIZES[name]
    config = getattr(comfy.supported_models, size.kind)(dict(size.config))
    config.unet_config.update(size.config)
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
    pack = comfyui_pack()
    core = {part: pack(f"unlearning_core.{part}") for part in ("methods", "prompts", "settings", "unlearn")}
    model, clip = random_model(name), StandIn(SIZES[name])
    retain = tuple(f"retain {number}" for number in range(RETAIN))
    prompts = core["prompts"].Prompts(("forget",), ("overwrite",), retain)
    method = core["methods"].METHODS["uce"]()
    settings = core["settings"].Settings(width=512, height=512, weights=method.weights)
    unlearning = pack("nodes.host.unlearning")
    before = loaded()

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


def comfyui_pack() -> Any:
    """Imports modules of the pack, as ComfyUI does, on the CPU."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from comfyui import find_comfyui

    from benchmarks.pack_in_process import import_pack

    return import_pack(find_comfyui(Path(sys.executable)))


def loaded() -> float:
    """Memory of this process now, in GB; the peak counts from here."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    return before


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
    one, two = (runs[f"FLUX.1, {blocks} + {blocks} blocks"]["GB above it"] for blocks in (1, 2))
    print(f"FLUX.1: at most {one + (FLUX_BLOCKS - 1) * max(two - one, 0.0):.2f} GB above the loaded model")
    write_figures({"runs": runs, "repeats": args.repeats, "machine": machine()}, args.json)


if __name__ == "__main__":
    main()
