"""Makes a model forget, and writes the patch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..hosts.texts import check_plain
from ..methods import METHODS, ClosedForm, Method
from ..model import SELECTIONS
from ..processes import current
from ..progress import Progress
from ..prompts import Prompts, all_prompts
from ..settings import Settings
from ..unlearn import unlearn
from .shared import ModelSource, add_model_arguments, add_precision_argument, check_patch_file, model_source

LINES = 10  # of progress in a log


@dataclass(frozen=True)
class Request:
    """What the command is asked to do."""

    source: ModelSource
    method: Method
    prompts: Prompts
    settings: Settings
    out: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn train`; those of training are the fields of `Settings`."""
    add_model_arguments(parser, "--model")
    add_precision_argument(parser)
    parser.add_argument("--method", choices=METHODS, default=next(iter(METHODS)), help="see docs/methods.md")
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
            name = f"--{spec.name.replace('_', '-')}"
            parser.add_argument(name, type=type(spec.default), default=spec.default, help=spec.metadata["help"])


def parse(args: argparse.Namespace) -> Request:
    """Raises ValueError for prompts, options or settings that cannot be used, or a bad name of the file to write."""
    prompts = Prompts.parse(*("\n".join(texts) for texts in (args.forget, args.overwrite, args.retain)))
    method = method_of(args.method, args.option)
    chosen = {spec.name: getattr(args, spec.name) for spec in fields(Settings)}
    settings = Settings(**{**chosen, "weights": args.weights or method.weights})
    method.check_settings(settings)
    check_patch_file(args.out)
    check_plain(all_prompts(prompts))
    return Request(model_source(args), method, prompts, settings, args.out)


def run(args: argparse.Namespace) -> None:
    """Trains with a progress line on stderr, and writes --out; of several processes, the main one does so."""
    request, is_main = parse(args), current().is_main
    if isinstance(request.method, ClosedForm) and not is_main:
        return
    model = request.source.load()
    patch = unlearn(model, request.method, request.prompts, request.settings, show if is_main else _nothing)
    if is_main:
        patch.save(request.out)
        print(request.out)


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


def _nothing(progress: Progress) -> None:
    """Shows it in the main process alone."""


def show(progress: Progress) -> None:
    """One line that is written over and over; in a log a line for each tenth of the run."""
    line = f"{progress.done}/{progress.total} {progress.phase}"
    if progress.loss is not None:
        line += f", loss {progress.loss:.4g}"
    if sys.stderr.isatty():
        end = "\n" if progress.done == progress.total else ""
        print(f"\r{line:<60}", end=end, file=sys.stderr, flush=True)
    elif progress.done * LINES // progress.total > (progress.done - 1) * LINES // progress.total:
        print(line, file=sys.stderr, flush=True)
