"""ComfyUI's model folders."""

from __future__ import annotations

from pathlib import Path

import folder_paths


def model_folders(name: str) -> list[Path]:
    """Where ComfyUI looks for models of one kind, such as lpips."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(name)]
