"""Each model family on a running ComfyUI: load, unlearn, save, open with the stock loader, sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import checkpoints
import pytest
import torch
from comfyui import Server
from graphs import Graph, latent, node, sampling, saved_patch, unlearn

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]
CHECKPOINTS = ["sd15", "sd21", "sdxl", "sd3"]
METHODS = ("ovw", "esd", "uce")
CAT = "a cat face"


# Their text encoders have one size, and take most of the time: numbers of tokens and of pooled text.
STAND_IN = {"sd21": (1024, 1024), "sdxl": (2048, 1280)}


def loaders(family: str) -> Graph:
    """Stock loaders with the MODEL at "load"; CLIP is at `clip_of`."""
    if family in CHECKPOINTS:
        graph = {"load": node("CheckpointLoaderSimple", ckpt_name=f"{family}.safetensors")}
        if family in STAND_IN:
            dim, pooled = STAND_IN[family]
            graph["clip"] = node("StandInCLIP", dim=dim, pooled=pooled)
        return graph
    config = json.dumps(checkpoints.T5_CONFIG)
    return {
        "load": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
        "clip": node("LoadSmallFluxCLIP", clip_l="clip_l.safetensors", t5="t5.safetensors", t5_config=config),
    }


def clip_of(family: str) -> tuple[str, int]:
    return ("clip", 0) if family in STAND_IN or family not in CHECKPOINTS else ("load", 1)


def draw(family: str, name: str, model: str) -> Graph:
    return sampling(name, model, CAT, clip=clip_of(family), side=64)


def trainings(family: str, **changes: Any) -> Graph:
    """A short training with each method, saved."""
    graph: Graph = {}
    for name in METHODS:
        settings = {"width": 64, "height": 64, "learning_rate": 1e-2, "batch_size": 1, "runs": 1, **changes}
        graph[name] = unlearn(method=name, clip=clip_of(family), retain_prompts="a car", **settings)
        graph[f"save {name}"] = node("SaveUnlearningPatch", patch=[name, 1], filename_prefix=f"{family}_{name}")
    return graph


@pytest.mark.parametrize("family", [*CHECKPOINTS, "flux"])
def test_unlearned_saved_and_opened_by_the_stock_loader(
    server: Server, run_prompt: RunPrompt, family_checkpoint: Callable[[str], None], family: str
) -> None:
    family_checkpoint(family)
    graph = loaders(family) | trainings(family) | draw(family, "base", "load")
    for name in METHODS:
        graph |= draw(family, f"drawn {name}", name)
    trained = run_prompt(graph)

    graph = loaders(family)
    for name in METHODS:
        file = saved_patch(server, trained, f"save {name}").name
        for strength in (0.0, 1.0):
            loaded = f"{name} at {strength}"
            graph[loaded] = node("LoraLoaderModelOnly", model=["load", 0], lora_name=file, strength_model=strength)
            graph |= draw(family, f"drawn {loaded}", loaded)
    opened = run_prompt(graph)

    base = latent(server, trained, "base")
    for name in METHODS:
        patched = latent(server, trained, f"drawn {name}")
        assert patched.isfinite().all()
        assert not torch.equal(patched, base)
        assert torch.equal(latent(server, opened, f"drawn {name} at 0.0"), base)
        assert torch.equal(latent(server, opened, f"drawn {name} at 1.0"), patched)


def test_stock_nodes_save_the_patched_model(
    server: Server, run_prompt: RunPrompt, family_checkpoint: Callable[[str], None]
) -> None:
    """CheckpointSave and ModelSave, opened again by the stock loaders, draw what the patched MODEL draws."""
    family_checkpoint("sd15")
    graph = loaders("sd15") | draw("sd15", "patched", "ovw") | draw("sd15", "base", "load")
    graph["ovw"] = unlearn(width=64, height=64, learning_rate=1e-2, batch_size=1, runs=1)
    graph["checkpoint"] = node(
        "CheckpointSave", model=["ovw", 0], clip=["load", 1], vae=["load", 2], filename_prefix="checkpoints/merged"
    )
    graph["network"] = node("ModelSave", model=["ovw", 0], filename_prefix="diffusion_models/merged")
    trained = run_prompt(graph)

    graph = loaders("sd15")
    graph["merged"] = node("CheckpointLoaderSimple", ckpt_name="merged_00001_.safetensors")
    graph["unet"] = node("UNETLoader", unet_name="merged_00001_.safetensors", weight_dtype="default")
    opened = run_prompt(graph | draw("sd15", "by merged", "merged") | draw("sd15", "by unet", "unet"))

    patched = latent(server, trained, "patched")
    assert not torch.equal(patched, latent(server, trained, "base"))
    assert torch.equal(latent(server, opened, "by merged"), patched)
    assert torch.equal(latent(server, opened, "by unet"), patched)
