"""The server that the two commands and the tests share, on stock nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from comfyui import Progress, PromptError, Server

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]


def picture_prompt(width: int, color: int = 0) -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "server"}},
    }


def test_outputs_can_be_downloaded(server: Server, run_prompt: RunPrompt) -> None:
    [file] = run_prompt(picture_prompt(16))["outputs"]["2"]["images"]
    assert server.download(file).startswith(b"\x89PNG")


def test_progress_is_reported(server: Server) -> None:
    seen: list[Progress] = []
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 768, "height": 768, "batch_size": 1, "color": 7}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 15, "sigma": 5.0}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    server.run(prompt, seen.append)
    assert {progress.node for progress in seen} <= prompt.keys()
    assert seen


def test_refused_prompt_is_explained(run_prompt: RunPrompt) -> None:
    with pytest.raises(PromptError, match=r"node 1 \(EmptyImage\): Value -1 smaller than min of 1: width"):
        run_prompt(picture_prompt(-1))
    with pytest.raises(PromptError, match="NoSuchNode"):
        run_prompt({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_failed_prompt_is_explained(run_prompt: RunPrompt) -> None:
    prompt = picture_prompt(16)
    prompt["2"]["inputs"]["filename_prefix"] = "../outside"
    with pytest.raises(PromptError, match=r"node 2 \(SaveImage\) failed: Exception: .*outside the output folder"):
        run_prompt(prompt)
