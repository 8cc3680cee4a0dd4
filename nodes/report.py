"""Where the measuring nodes leave their figures: JSON and CSV in ComfyUI's output folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_api.latest import io

if TYPE_CHECKING:
    from ..unlearning_core.metrics.report import Value


def prefix_input(default: str) -> io.Input:
    return io.String.Input(
        "filename_prefix",
        default=f"unlearning/{default}",
        optional=True,
        advanced=True,
        tooltip="Every figure and setting is saved under this name in ComfyUI's output folder, as JSON and CSV. "
        "Folders are allowed; a counter is added.",
    )


def check_prefix(prefix: str | None) -> None:
    """Raises ValueError for a prefix out of the output folder, where saving is refused; None is a link."""
    output = Path(folder_paths.get_output_directory()).resolve()
    if prefix is not None and not (output / prefix).resolve().parent.is_relative_to(output):
        raise ValueError(f"filename prefix: {prefix!r} leads out of ComfyUI's output folder; write a name within it")


def save_report(prefix: str, summary: dict[str, Any], values: Sequence[Value]) -> list[dict[str, str]]:
    """Writes both files under the next free name; tells the front end which they are."""
    from ..unlearning_core.metrics.report import write_report

    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    paths = write_report(Path(folder) / f"{name}_{counter:05}_", summary, values)
    return [{"filename": path.name, "subfolder": subfolder, "type": "output"} for path in paths]
