"""A real ComfyUI for the tests that need one. UNLEARNING_TEST_OLDEST=1 takes the oldest supported version."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfyui
import pytest


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The folder of the ComfyUI under test."""
    if os.environ.get("UNLEARNING_TEST_OLDEST") == "1":
        return comfyui.pinned_comfyui(comfyui.OLDEST, Path(sys.executable))
    return comfyui.find_comfyui(Path(sys.executable))


@pytest.fixture(scope="session")
def server(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[comfyui.Server]:
    """One running ComfyUI with this pack and the tests' own loader, for all tests."""
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "1000000")  # glibc gives freed weights back to the system
    folder = tmp_path_factory.mktemp("comfyui")
    shutil.copytree(Path(__file__).parent / "support" / "small_clip", folder / "custom_nodes" / "small_clip")
    with comfyui.Server(comfyui_path, Path(sys.executable), folder) as running:
        yield running


@pytest.fixture
def run_prompt(server: comfyui.Server) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Runs a workflow in API format and returns its history entry; raises comfyui.PromptError when it fails."""
    return server.run
