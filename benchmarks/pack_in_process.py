"""The pack inside this process, beside ComfyUI's modules on the CPU."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from benchmarks.processes import ROOT

Pack = Callable[[str], ModuleType]  # imports a module of the pack by its path in it


def import_pack(comfyui_path: Path) -> Pack:
    """Imports the pack the way ComfyUI imports one."""
    sys.path.insert(0, str(comfyui_path))  # before the repository, whose `nodes` is not ComfyUI's
    importlib.import_module("utils.extra_config")  # as main.py does, before ComfyUI's `nodes` puts comfy/utils.py first
    from comfy.cli_args import args

    args.cpu = True
    spec = importlib.util.spec_from_file_location("comfyui_unlearning", ROOT / "__init__.py")
    assert spec and spec.loader
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    return lambda name: importlib.import_module(f"comfyui_unlearning.{name}")
