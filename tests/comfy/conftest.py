"""The pack inside this process, beside ComfyUI's modules on the CPU, for what a server does not show."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import checkpoints
import pytest
import torch
from comfyui import Server

from benchmarks.pack_in_process import import_pack
from unlearning_core.tiny import MODEL


@pytest.fixture(scope="session")
def pack(comfyui_path: Path) -> Callable[[str], ModuleType]:
    """Imports a module of the pack by its path in it."""
    return import_pack(comfyui_path)


@pytest.fixture(scope="session")
def model(pack: Callable[[str], ModuleType]) -> Any:
    """The shipped model's MODEL, loaded as ComfyUI's executor loads it."""
    with torch.inference_mode():
        return pack("nodes.host.tiny").load_model(MODEL)


@pytest.fixture(scope="session")
def clip(pack: Callable[[str], ModuleType]) -> Any:
    with torch.inference_mode():
        return pack("nodes.host.tiny").load_clip(MODEL)


@pytest.fixture(scope="session")
def unlearned(pack: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """Makes a patch of two steps as Unlearn Concept does: `unlearned(model, clip, method)`."""
    core = {name: pack(f"unlearning_core.{name}") for name in ("methods", "prompts", "settings", "unlearn")}
    prompts = core["prompts"].Prompts(("a cat face",), ("a dog face",), ("a car",))
    options: dict[str, dict[str, float]] = {"sa": {"fisher_samples": 2}, "nullspace": {"tolerance": 1e-3}}

    def unlearn(model: Any, clip: Any, name: str) -> Any:
        method = core["methods"].METHODS[name](**options.get(name, {}))
        settings = core["settings"].Settings(
            steps=2, learning_rate=1e-3, width=64, height=64, batch_size=1, runs=1, run_steps=2, weights=method.weights
        )
        opened = pack("nodes.host.unlearning").opened(model, clip, method)
        with torch.inference_mode(False), torch.enable_grad(), opened as host:
            return core["unlearn"].unlearn(host, method, prompts, settings)

    return unlearn


@pytest.fixture(scope="session")
def trained(unlearned: Callable[..., Any], clip: Any) -> Callable[..., Any]:
    """A patch of the shipped model's CLIP by each of some methods: `trained(model, "ovw", "uce")`."""
    return lambda model, *methods: [unlearned(model, clip, method) for method in methods]


@pytest.fixture(scope="session")
def family_checkpoint(pack: Callable[[str], ModuleType], server: Server) -> Callable[[str], None]:
    """Writes a family's small checkpoint once into the server's model folders: see `checkpoints`."""
    models = server.base_directory / "models"

    @functools.cache
    def write(family: str) -> None:
        if family == "flux":
            checkpoints.write_flux(models)
        else:
            checkpoints.write_checkpoint(family, models / "checkpoints" / f"{family}.safetensors")

    return write
