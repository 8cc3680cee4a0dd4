"""Writes a patch as full deltas, as LoRA of another rank, or merged into its base model."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..metrics.plan import prompt_seeds_of
from ..patch import UnlearningPatch
from ..processes import current
from ..sampling import Sampling
from .bars import bar, moving
from .shared import (
    ModelSource,
    add_model_arguments,
    add_sampling_arguments,
    check_patch_file,
    model_source,
    sampling_of,
    strength,
)


@dataclass(frozen=True)
class Measurement:
    """The pictures that show what a conversion costs."""

    count: int  # of each retain prompt; 0 for none
    seed: int  # of the first
    sampling: Sampling


@dataclass(frozen=True)
class Request:
    """What the command is asked to do."""

    patch: UnlearningPatch
    out: Path
    source: ModelSource | None
    merge: bool
    strength: float  # of the patch in a merge
    rank: int | None  # of a LoRA; None for full deltas
    measurement: Measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn export`."""
    parser.add_argument("patch", type=Path, help="patch file")
    parser.add_argument("out", type=Path, help="file to write; a folder with --merge")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--rank", type=int, help="LoRA of this rank, by singular value decomposition; without biases")
    form.add_argument("--full", action="store_true", help="full weight deltas, biases included")
    form.add_argument("--merge", action="store_true", help="the base model with the patch in its weights")
    add_model_arguments(parser, "--base", "; for --merge and --pictures", required=False)
    parser.add_argument("--strength", type=strength, help="how much of the patch to merge; without it 1")
    parser.add_argument(
        "--pictures",
        type=int,
        default=0,
        help="measure how far --rank moves pictures, as LPIPS, on so many seeds of each retain prompt",
    )
    add_sampling_arguments(parser)


def parse(args: argparse.Namespace) -> Request:
    """Raises ValueError for several processes, a missing base, a strength without --merge, a damaged patch or a place
    that cannot be written to, FileNotFoundError for a missing patch.
    """
    from ..export import check_new

    if current().count > 1:
        raise ValueError("export: one process does it all; start it without a launcher")
    if args.model is None and (args.merge or args.pictures):
        raise ValueError("--base: missing; --merge and --pictures need the base model")
    if args.strength is not None and not args.merge:
        raise ValueError("--strength: only --merge applies one; give it where the file is loaded")
    patch = UnlearningPatch.load(args.patch)
    if args.merge:
        check_new(args.out)
    else:
        check_patch_file(args.out)
    return Request(
        patch=patch,
        out=args.out,
        source=None if args.model is None else model_source(args),
        merge=args.merge,
        strength=1.0 if args.strength is None else args.strength,
        rank=args.rank,
        measurement=Measurement(args.pictures, args.seed, sampling_of(args, patch.record)),
    )


def run(args: argparse.Namespace) -> None:
    """Writes the file or folder, and prints its name and what the conversion lost."""
    request = parse(args)
    if request.merge:
        _merge(request)
    else:
        _convert(request)
    print(request.out)


def _merge(request: Request) -> None:
    from ..export import merge

    assert request.source is not None
    merge(request.source.load(), request.patch, request.strength, request.out)


def _convert(request: Request) -> None:
    from ..export import lost_layers, to_full, to_low_rank, weight_error

    if request.rank is None:
        converted = to_full(request.patch)
    else:
        with bar("decomposing", "layer") as shown:
            converted = to_low_rank(request.patch, request.rank, moving(shown))
        if lost := lost_layers(request.patch):
            print(lost)
        print(
            f"the rank loses {weight_error(request.patch, converted):.3g} of the change's norm (Frobenius, all weights)"
        )
    if request.measurement.count:
        print(_picture_error(request, converted))
    converted.save(request.out)


def _picture_error(request: Request, converted: UnlearningPatch) -> str:
    """What the conversion changes in integrity loss, as a line."""
    from ..export import picture_error
    from ..reports.tables import settings_line

    assert request.source is not None
    model, measurement = request.source.load(), request.measurement
    request.patch.check_base(model.fingerprint())
    prompts = request.patch.record.retain or [""]
    model.check_prompts(prompts)
    seeds = range(measurement.seed, measurement.seed + measurement.count)
    prompt_seeds = prompt_seeds_of(prompts, seeds)
    with bar("drawing", "picture", 2 * len(prompt_seeds)) as shown:
        distance = picture_error(model, request.patch, converted, prompt_seeds, measurement.sampling, shown.update)
    settings = settings_line(measurement.sampling.settings())
    drawn = f"{len(prompt_seeds)} pictures of the retain prompts, {settings}, float32"
    return f"LPIPS (alex) between pictures with the patch and with the LoRA: {distance:.4f} ({drawn})"
