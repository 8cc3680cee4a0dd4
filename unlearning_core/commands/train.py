"""Makes a model forget, and writes the patch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..methods import METHODS, Method
from ..model import SELECTIONS
from ..prompts import Prompts
from ..train import Progress, Settings
from .shared import DEVICE_HELP, MODEL_HELP, PRECISIONS, check_patch_file, device_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn train`; those of training are the fields of `Settings`."""
    parser.add_argument("--model", required=True, help=MODEL_HELP)
    parser.add_argument("--config", type=Path, help="diffusers folder of the family, when the model is a file")
    parser.add_argument("--method", choices=METHODS, default=next(iter(METHODS)))
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the method; may be repeated"
    )
    parser.add_argument(
        "--forget", action="append", required=True, help="prompt to forget, or 'a cat => a dog'; may be repeated"
    )
    parser.add_argument("--overwrite", action="append", default=[], help="what to draw instead; may be repeated")
    parser.add_argument("--retain", action="append", default=[], help="prompt to hold; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("patch.safetensors"), help="file to write")
    parser.add_argument("--weights", choices=SELECTIONS, help="to train; without it those of the method's reference")
    for spec in fields(Settings):
        if spec.metadata:
            name, text = f"--{spec.name.replace('_', '-')}", f"{spec.metadata['help']} (default {spec.default})"
            parser.add_argument(name, type=type(spec.default), default=spec.default, help=text)
    parser.add_argument("--device", help=DEVICE_HELP)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the model; deltas are float32")


def run(args: argparse.Namespace) -> None:
    """Trains with a progress line on stderr, and writes --out."""
    import torch

    from ..hosts.diffusers import DiffusersModel
    from ..unlearn import check_settings, unlearn

    prompts = Prompts.parse(*("\n".join(texts) for texts in (args.forget, args.overwrite, args.retain)))
    method = method_of(args.method, args.option)
    chosen = {spec.name: getattr(args, spec.name) for spec in fields(Settings)}
    settings = Settings(**{**chosen, "weights": args.weights or method.weights})
    check_settings(method, settings)
    check_patch_file(args.out)
    model = DiffusersModel.load(args.model, device_of(args), getattr(torch, args.precision), args.config)
    patch = unlearn(model, method, prompts, settings, show)
    patch.save(args.out)
    print(args.out)


def method_of(name: str, options: Sequence[str]) -> Method:
    """The method with options such as `help_weight=3`. Raises ValueError for an unknown one or no number."""
    kind = METHODS[name]
    known: dict[str, Any] = {spec.name: type(spec.default) for spec in fields(kind)}
    values = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in known:
            raise ValueError(f"--option {option}: {name} has no {key!r}; it has {', '.join(known)}")
        try:
            values[key] = known[key](value)
        except ValueError as error:
            raise ValueError(f"--option {option}: {value!r} is no number") from error
    return kind(**values)


def show(progress: Progress) -> None:
    """One line that is written over and over."""
    import sys

    loss = "" if progress.loss is None else f", loss {progress.loss:.4g}"
    end = "\n" if progress.done == progress.total else ""
    print(f"\r{progress.done}/{progress.total}{loss}", end=end, file=sys.stderr, flush=True)
