"""Writes a patch as full deltas, as LoRA of another rank, or merged into its base model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .shared import DEVICE_HELP, MODEL_HELP, check_patch_file, device_of

if TYPE_CHECKING:
    from ..patch import UnlearningPatch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn export`."""
    parser.add_argument("patch", type=Path, help="patch file")
    parser.add_argument("out", type=Path, help="file to write; a folder with --merge")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--rank", type=int, help="LoRA of this rank, by singular value decomposition; without biases")
    form.add_argument("--full", action="store_true", help="full weight deltas, biases included")
    form.add_argument("--merge", action="store_true", help="the base model with the patch in its weights")
    parser.add_argument("--base", help=f"{MODEL_HELP}; for --merge and --pictures")
    parser.add_argument("--config", type=Path, help="diffusers folder of the family, when the base is a file")
    parser.add_argument("--strength", type=float, default=1.0, help="how much of the patch to merge")
    parser.add_argument(
        "--pictures", type=int, default=0, help="measure what --rank changes in I, on so many seeds a retain prompt"
    )
    parser.add_argument("--seed", type=int, default=1000, help="first seed of --pictures")
    parser.add_argument("--steps", type=int, default=25, help="Euler steps of --pictures")
    parser.add_argument("--cfg", type=float, default=7.0, help="guidance scale of --pictures")
    parser.add_argument("--width", type=int, default=512, help="pixels")
    parser.add_argument("--height", type=int, default=512, help="pixels")
    parser.add_argument("--device", help=DEVICE_HELP)


def run(args: argparse.Namespace) -> None:
    """Writes the file or folder and prints what the conversion lost."""
    from ..export import to_full, to_low_rank, weight_error
    from ..patch import UnlearningPatch

    if args.base is None and (args.merge or args.pictures):
        raise ValueError("--base: missing; --merge and --pictures need the base model")
    patch = UnlearningPatch.load(args.patch)
    if args.merge:
        _merge(args, patch)
        return
    check_patch_file(args.out)
    converted = to_full(patch) if args.full else to_low_rank(patch, args.rank)
    print(f"error in weights: {weight_error(patch, converted):.3g} of the change's norm")
    if args.pictures:
        print(_picture_error(args, patch, converted))
    converted.save(args.out)


def _merge(args: argparse.Namespace, patch: UnlearningPatch) -> None:
    from ..export import check_new, merge
    from ..hosts.diffusers import DiffusersModel

    check_new(args.out)
    merge(DiffusersModel.load(args.base, device_of(args), config=args.config), patch, args.strength, args.out)


def _picture_error(args: argparse.Namespace, patch: UnlearningPatch, converted: UnlearningPatch) -> str:
    from ..export import picture_error
    from ..hosts.diffusers import DiffusersModel
    from ..sampling import Sampling

    model = DiffusersModel.load(args.base, device_of(args), config=args.config)
    patch.check_base(model.weights(), model.changes())
    sampling = Sampling(args.steps, args.cfg, args.width, args.height)
    prompts = patch.record.retain or [""]
    shots = [(prompt, args.seed + index) for prompt in prompts for index in range(args.pictures)]
    settings = ", ".join(f"{name} {value}" for name, value in sampling.settings().items())
    distance = picture_error(model, patch, converted, shots, sampling)
    return f"error in I: {distance:.4f} (LPIPS alex, {len(shots)} pictures, {settings}, float32)"
