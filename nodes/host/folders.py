"""ComfyUI's folders: where models are looked for, and where results go."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import folder_paths
from torch import Tensor

from ...unlearning_core.files import check_characters, check_writable
from ...unlearning_core.recipe import SUFFIX

if TYPE_CHECKING:
    from ...unlearning_core.reports.files import Report

LONGEST = "sheet.png"  # of what figures and pictures have behind their prefix and counter
RECIPES = "unlearning_recipes"  # ComfyUI's name for the recipes beside patches
UNSEEN = ("Cc", "Cf")  # Unicode's categories of control and format characters
DRIVE = re.compile("[A-Za-z]:")  # on Windows; a name there may not travel
KINDS = ("lpips", "open_clip", "inception")  # model folders that ComfyUI does not know by itself


class Target(NamedTuple):
    """The next free place under a file name prefix."""

    folder: Path
    name: str  # without a suffix
    subfolder: str  # of ComfyUI's output folder, for the front end


def add_model_folders() -> None:
    """Registers the folders of KINDS with ComfyUI, and the recipes in those of LoRAs."""
    loras, _ = folder_paths.folder_names_and_paths["loras"]
    folder_paths.folder_names_and_paths[RECIPES] = (loras, {SUFFIX})
    for kind in KINDS:
        folder_paths.add_model_folder_path(kind, str(Path(folder_paths.models_dir) / kind))


def file_state(kind: str, file: str) -> list[int]:
    """What changes when a chosen file is written again."""
    status = os.stat(folder_paths.get_full_path_or_raise(kind, file))
    return [status.st_mtime_ns, status.st_size]


def chosen_file(kind: str, file: str, what: str, where: str) -> Path:
    """The place of a file that a list of this kind named. Raises ValueError when it is there no more."""
    path = folder_paths.get_full_path(kind, file)
    if path is None:
        raise ValueError(f"{what} {file}: not found {where}; refresh the list (R) and choose again")
    return Path(path)


def model_folders(kind: str) -> list[Path]:
    """Where ComfyUI looks for models of one kind, such as lpips."""
    return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]


def check_prefix(prefix: str, below: str = "", suffix: str = LONGEST) -> None:
    """Raises ValueError when a file name prefix names no file, or leaves the folder `below` ComfyUI's output folder.

    Or when a file with a counter and the suffix, the longest one if there are several, cannot be written.
    """
    try:
        _check_target(prefix, below, suffix)
    except ValueError as error:
        raise ValueError(f"filename_prefix: {error}") from error


def next_target(prefix: str, below: str = "", suffix: str = LONGEST) -> Target:
    """The next free file name, whose folder is made. Raises as `check_prefix` does."""
    check_prefix(prefix, below, suffix)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        str(Path(below, prefix)), folder_paths.get_output_directory()
    )
    return Target(Path(folder), f"{name}_{counter:05}_", subfolder)


def save_report(target: Target, report: Report) -> list[dict[str, str]]:
    """Writes JSON and CSV; returns where they are."""
    from ...unlearning_core.reports.files import write_report

    paths = write_report(target.folder / target.name, report)
    return [output_file(path.name, target) for path in paths]


def save_pictures(target: Target, pictures: Mapping[str, Tensor], texts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Writes pictures [1, H, W, 3] in 0..1 as PNG, each with its name behind the target's; returns where they are.

    `texts` go into the files as JSON: under ComfyUI's names, they make a picture open its workflow.
    """
    from ...unlearning_core.reports.png import save_picture

    names = {name: f"{target.name}{name}.png" for name in pictures}
    for name, picture in pictures.items():
        save_picture(picture, target.folder / names[name], texts)
    return [output_file(file, target) for file in names.values()]


def output_file(name: str, target: Target) -> dict[str, str]:
    """A file as the front end finds it."""
    return {"filename": name, "subfolder": target.subfolder, "type": "output"}


def _check_target(prefix: str, below: str, suffix: str) -> None:
    check_characters(prefix)
    if any(unicodedata.category(character) in UNSEEN for character in prefix):
        raise ValueError(f"{prefix!r}: there are characters in it that nobody sees; write it in plain characters")
    parts = [part for part in re.split(r"[/\\]", prefix.strip()) if part not in ("", ".")]
    if not parts:
        raise ValueError("empty; write a file name, such as unlearned")
    folder = (Path(folder_paths.get_output_directory()) / below).resolve()
    inside = (folder / prefix).resolve().is_relative_to(folder)  # a link in it may lead out
    if ".." in parts or DRIVE.match(prefix) or Path(prefix).is_absolute() or not inside:
        named = Path("output", below).as_posix()
        raise ValueError(f"{prefix!r} leaves {named}; write a name, or folders and a name, within it")
    check_writable(folder / f"{os.path.normpath(prefix)}_{1:05}_{suffix}")
