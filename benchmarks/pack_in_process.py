"""The pack inside this process, beside ComfyUI's modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from benchmarks.processes import ROOT

Pack = Callable[[str], ModuleType]  # imports a module of the pack by its path in it


def import_pack(comfyui_path: Path, cpu: bool = True) -> Pack:
    """Imports the pack the way ComfyUI imports one; ComfyUI uses the GPU when `cpu` is off."""
    sys.path.insert(0, str(comfyui_path))  # before the repository, whose `nodes` is not ComfyUI's
    importlib.import_module("utils.extra_config")  # as main.py does, before ComfyUI's `nodes` puts comfy/utils.py first
    from comfy.cli_args import args

    args.cpu = cpu
    spec = importlib.util.spec_from_file_location("comfyui_unlearning", ROOT / "__init__.py")
    assert spec and spec.loader
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    return lambda name: importlib.import_module(f"comfyui_unlearning.{name}")
