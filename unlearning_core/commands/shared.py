"""What several subcommands have in common."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import check_writable
from ..sampling import Sampling

if TYPE_CHECKING:
    from ..hosts.base import DiffusersModel

MODEL_HELP = "diffusers folder, safetensors file, or a name on Hugging Face such as owner/model"
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

        try:
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError) as error:  # the former where torch was built without CUDA
            raise ValueError(f"--device {self.device}: {str(error).splitlines()[0]}") from error
        return load(self.model, self.device, getattr(torch, self.precision), self.config)


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
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the model; deltas are float32")


def model_source(args: argparse.Namespace) -> ModelSource:
    """Of the arguments that `add_model_arguments` defines."""
    return ModelSource(args.model, args.config, args.device or default_device(), args.precision)


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sampling_of` reads, and the first seed."""
    group = parser.add_argument_group("how pictures are drawn")
    group.add_argument("--seed", type=int, default=1000, help="first seed of each prompt")
    group.add_argument("--steps", type=int, default=25, help="Euler steps")
    group.add_argument("--cfg", type=float, default=7.0, help="guidance scale")
    group.add_argument("--width", type=int, default=512, help="pixels")
    group.add_argument("--height", type=int, default=512, help="pixels")


def sampling_of(args: argparse.Namespace) -> Sampling:
    """Of the arguments that `add_sampling_arguments` defines."""
    return Sampling(args.steps, args.cfg, args.width, args.height)


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
