"""Starting ComfyUI imports nothing heavy for this pack."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HEAVY = {
    "diffusers",
    "lpips",
    "open_clip",
    "transformers",
    "torchvision",
    "matplotlib",
    "scipy",
    "torchmetrics",
    "torch_fidelity",
}


def test_nothing_heavy_is_imported(comfyui_path: Path, tmp_path: Path) -> None:
    pack = Path(__file__).parents[2]
    path = pack / "benchmarks" / "startup.py"
    spec = importlib.util.spec_from_file_location("startup", path)
    assert spec and spec.loader
    startup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(startup)
    modules = startup.probe(comfyui_path, pack, str(tmp_path))["modules"]
    assert "pack" in modules
    assert not HEAVY & set(modules)
