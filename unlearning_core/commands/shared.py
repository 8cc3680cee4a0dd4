"""What several subcommands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files import check_writable, read_text
from ..patch import Record, UnlearningPatch
from ..processes import current
from ..prompts import check_measured, lines
from ..sampling import SEEDS, Sampling
from ..settings import USUAL_SIDE

if TYPE_CHECKING:
    from ..hosts.base import DiffusersModel

MODEL_HELP = "diffusers folder, safetensors file, or a name on Hugging Face such as owner/model"
STRONGEST = 10.0  # strength of a patch, as its loader node takes it
SIDES = ("width", "height")
SECTIONS = ("retain", "forget")
PRECISIONS = ("float32", "bfloat16")  # gradients underflow in float16


@dataclass(frozen=True)
class ModelSource:
    """Which model to load, and how."""

    model: str
    config: Path | None
    device: str
    precision: str

    def load(self) -> DiffusersModel:
        """Raises ValueError for a device that is not there, or as `families.load`."""
        import torch

        from ..hosts.families import load

        _keep_quiet()
        try:
            torch.zeros(1, device=self.device).cpu()
        except Exception as error:  # what a device's own module raises
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(f"--device {self.device}: {reason}") from error
        return load(self.model, self.device, getattr(torch, self.precision), self.config)


def _keep_quiet() -> None:
    """The libraries under a command say nothing of their own but errors."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def default_device() -> str:
    """cuda where that is available, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def add_model_arguments(parser: argparse.ArgumentParser, flag: str, note: str = "", required: bool = True) -> None:
    """What `model_source` reads; `flag` names the model, such as --base."""
    parser.add_argument(flag, dest="model", metavar=flag[2:].upper(), required=required, help=MODEL_HELP + note)
    parser.add_argument("--config", type=Path, help="diffusers folder of the family, when the model is a file")
    parser.add_argument("--device", help="without it cuda where that is available, else cpu")
    parser.set_defaults(precision="float32")


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    """The model's precision, float32 without it."""
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the model; changes are float32")


def model_source(args: argparse.Namespace) -> ModelSource:
    """Of the arguments that `add_model_arguments` defines."""
    device = current().device(args.device or default_device())
    return ModelSource(args.model, args.config, device, args.precision)


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sampling_of` reads, and the first seed."""
    group = parser.add_argument_group("how pictures are drawn")
    group.add_argument("--seed", type=seed, default=1000, help="first seed of each prompt")
    group.add_argument("--steps", type=int, default=25, help="Euler steps")
    group.add_argument("--cfg", type=float, default=7.0, help="guidance scale")
    for side in SIDES:
        group.add_argument(f"--{side}", type=int, help="pixels; without it those that the patch was trained at")


def sampling_of(args: argparse.Namespace, record: Record) -> Sampling:
    """Of the arguments that `add_sampling_arguments` defines, and the record of the patch that is drawn with."""
    given = (getattr(args, side) for side in SIDES)
    trained = (record.settings.get(side) for side in SIDES)
    width, height = (
        one or (other if type(other) is int else USUAL_SIDE) for one, other in zip(given, trained, strict=True)
    )
    return Sampling(args.steps, args.cfg, width, height)


def seed(text: str) -> int:
    """An argument's type. Raises ArgumentTypeError for what is no seed."""
    return int(_within(int(text), 0, SEEDS - 1))


def strength(text: str) -> float:
    """An argument's type: how much of a patch to apply. Raises ArgumentTypeError for what is none."""
    return _within(float(text), -STRONGEST, STRONGEST)


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{value} is out of range; choose {low} to {high}")
    return value


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Raises ValueError for an argument below 1."""
    for name in names:
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: {getattr(args, name)}; must be 1 or more")


def check_patch_file(path: Path) -> None:
    """Raises ValueError when a patch cannot be written there, or ComfyUI would not list it."""
    if path.is_dir() or path.suffix != ".safetensors":
        raise ValueError(f"{path}: no name for a patch; write one that ends in .safetensors")
    check_writable(path)


class PromptFile(NamedTuple):
    """The prompts to measure."""

    retain: tuple[str, ...]
    forget: tuple[str, ...]


def read_prompts(path: Path) -> PromptFile:
    """Prompts under `[retain]` and `[forget]`; those before any heading are retain prompts.

    Raises ValueError for another heading, no retain prompt, or a prompt under both.
    """
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    section = "retain"
    for line in lines(read_text(path)):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            if section not in SECTIONS:
                raise ValueError(f"{path}: {line} is no heading; write [retain] or [forget]")
        else:
            found[section].append(line)
    prompts = PromptFile(*(tuple(found[name]) for name in SECTIONS))
    try:
        check_measured(*prompts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return prompts


def read_patches(paths: Sequence[Path]) -> dict[str, UnlearningPatch]:
    """The patches under their files' names. Raises ValueError for two of one name, or a missing or damaged
    file.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"--patch {missing[0]}: there is no such file")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("--patch: two files have the same name; the name stands for the model in every table")
    return {name: UnlearningPatch.load(path) for name, path in zip(names, paths, strict=True)}
