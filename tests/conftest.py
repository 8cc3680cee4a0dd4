"""A home of the tests' own, and a real ComfyUI for those that need one.

UNLEARNING_TEST_OLDEST=1 takes the oldest supported ComfyUI.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfyui
import hypothesis
import own_home
import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Before test modules are imported, because some libraries read their folders once, when they are imported.
    home = tempfile.TemporaryDirectory(prefix="unlearning-home-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    environment = pytest.MonkeyPatch()
    config.add_cleanup(environment.undo)
    own_home.move_in(Path(home.name), environment)
    # The same cases in every run: what fails for one change fails for that change alone.
    hypothesis.settings.register_profile("fixed", derandomize=True)
    hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session")
def comfyui_path() -> Path:
    """The folder of the ComfyUI under test."""
    with own_home.users_home():
        if os.environ.get("UNLEARNING_TEST_OLDEST") == "1":
            return comfyui.pinned_comfyui(comfyui.OLDEST, Path(sys.executable))
        return comfyui.find_comfyui(Path(sys.executable))


@pytest.fixture(scope="session")
def server(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[comfyui.Server]:
    """One running ComfyUI with this pack and the tests' own loader, for all tests."""
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "1000000")  # glibc gives freed weights back to the system
    folder = tmp_path_factory.mktemp("comfyui")
    shutil.copytree(Path(__file__).parent / "support" / "small_clip", folder / "custom_nodes" / "small_clip")
    running = comfyui.Server(comfyui_path, Path(sys.executable), folder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("https_proxy", "http://127.0.0.1:9")  # no network: torchvision's server has all weights
        running.start()
    yield running
    running.stop()


@pytest.fixture
def run_prompt(server: comfyui.Server) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Runs a workflow in API format and returns its history entry; raises comfyui.PromptError when it fails."""
    return server.run
