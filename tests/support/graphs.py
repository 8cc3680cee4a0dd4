"""Workflows in API format, and what they leave behind."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from comfyui import Server
from safetensors.torch import load

from unlearning_core.methods import METHODS

Graph = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def unlearn(**changes: Any) -> dict[str, Any]:
    """Unlearn Concept on the loader "load", three steps of a method with its default options."""
    inputs: dict[str, Any] = {
        "model": ["load", 0],
        "clip": ["load", 1],
        "forget_prompts": "a cat face",
        "overwrite_prompt": "a dog face",
        "retain_prompts": "a car\na frog in noto style",
        "method": "ovw",
        "steps": 3,
        "learning_rate": 2e-3,
        "weights": "method default",
        "rank": 0,
        "alpha": 0.0,
        "seed": 0,
        "width": 128,
        "height": 128,
        "batch_size": 2,
        "runs": 2,
        "run_steps": 3,
        "run_cfg": 3.0,
    }
    chosen = inputs | changes
    kind = METHODS.get(chosen["method"])
    options = {f"method.{spec.name}": spec.default for spec in fields(kind)} if kind else {}
    return node("UnlearnConcept", **(options | chosen))


def training(prefix: str, **changes: Any) -> Graph:
    return {
        "load": node("LoadTinyT2I"),
        "unlearn": unlearn(**changes),
        "save": node("SaveUnlearningPatch", patch=["unlearn", 1], filename_prefix=prefix),
    }


def sampling(
    name: str,
    model: str,
    prompt: str = "a cat face in noto style",
    last_step: int = 10_000,
    clip: tuple[str, int] = ("load", 1),
    side: int = 128,
) -> Graph:
    """Saves the latent that MODEL node `model` draws. Graphs that are merged share what encodes the same text."""
    positive, negative = (f"{clip[0]} encodes {text!r}" for text in (prompt, ""))
    return {
        positive: node("CLIPTextEncode", clip=clip, text=prompt),
        negative: node("CLIPTextEncode", clip=clip, text=""),
        f"{name} empty": node("EmptyLatentImage", width=side, height=side, batch_size=1),
        f"{name} sampled": node(
            "KSamplerAdvanced",
            model=[model, 0],
            positive=[positive, 0],
            negative=[negative, 0],
            latent_image=[f"{name} empty", 0],
            add_noise="enable",
            noise_seed=5,
            steps=4,
            cfg=3.0,
            sampler_name="euler",
            scheduler="normal",
            start_at_step=0,
            end_at_step=last_step,
            return_with_leftover_noise="disable",
        ),
        name: node("SaveLatent", samples=[f"{name} sampled", 0], filename_prefix="latent"),
    }


def latent(server: Server, entry: dict[str, Any], name: str) -> torch.Tensor:
    return load(server.download(entry["outputs"][name]["latents"][0]))["latent_tensor"]


def saved_patch(server: Server, entry: dict[str, Any], name: str = "save") -> Path:
    """The file that Save Unlearning Patch node `name` wrote."""
    [file] = entry["outputs"][name]["patch"]
    return server.base_directory / "output" / file["subfolder"] / file["filename"]


def shortened(graph: Graph) -> Graph:
    """A workflow with as little to train and to draw as there can be."""
    least: dict[str, Any] = {"thoroughness": "custom"}  # a preset has steps of its own
    least |= {"steps": 2, "runs": 1, "run_steps": 2, "seeds": 1, "forget_seeds": 1, "batch_size": 2, "examples": 1}
    boxes = ("forget_prompts", "overwrite_prompt", "retain_prompts", "other_prompts", "attacks")
    for entry in graph.values():
        inputs = entry["inputs"]
        inputs |= {name: value for name, value in least.items() if name in inputs}
        inputs |= {name: "\n".join(inputs[name].splitlines()[:2]) for name in boxes if name in inputs}
    return graph
