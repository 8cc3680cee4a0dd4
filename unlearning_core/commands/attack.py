"""Attacks unlearning patches: whether the concept stays forgotten, and what brings it back."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..attacks import ATTACKS, Attack, parse_attacks
from ..attacks.base import Host, Task
from ..attacks.examine import Examination, Examiner, Opened, check_model_names
from ..files import check_writable, write_atomically
from ..hosts.texts import check_plain
from ..metrics.clip import clip_named
from ..metrics.forgetting import target_of
from ..metrics.plan import check_measurable, distinct
from ..patch import UnlearningPatch
from ..processes import current
from .bars import bar, moving
from .judging import JudgeChoice, add_judge_arguments, judge_named, read_domains
from .shared import (
    ModelSource,
    add_model_arguments,
    add_precision_argument,
    add_sampling_arguments,
    check_counts,
    model_source,
    read_patches,
    read_prompts,
    sampling_of,
    strength,
)

if TYPE_CHECKING:
    from ..hosts.base import DiffusersModel


@dataclass(frozen=True)
class Request:
    """What the command is asked to do."""

    source: ModelSource
    patches: Mapping[str, UnlearningPatch]
    strength: float
    attacks: Mapping[str, Attack]
    task: Task
    judge: JudgeChoice
    clip: str
    out: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn attack`."""
    add_model_arguments(parser, "--base")
    add_precision_argument(parser)
    parser.add_argument("--patch", type=Path, required=True, action="append", help="patch file; may be repeated")
    parser.add_argument("--strength", type=strength, default=1.0, help="how much of each patch to apply")
    parser.add_argument(
        "--attacks",
        nargs="+",
        default=list(ATTACKS),
        metavar="ATTACK",
        help="names, each with its options in quotes, such as 'relearning steps=5,20'; see docs/attacks.md",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        required=True,
        help="text file: one prompt per line, other things under [retain] and the concept under [forget]",
    )
    parser.add_argument("--wording", action="append", default=[], help="of a forget prompt; may be repeated")
    parser.add_argument("--seeds", type=int, default=Task.seeds, help="pictures of each forget prompt in each setting")
    parser.add_argument("--examples", type=int, default=Task.examples, help="pictures by the base to attack with")
    parser.add_argument("--out", type=Path, default=Path("attacks"), help="folder for tables, figures and pictures")
    add_sampling_arguments(parser)
    add_judge_arguments(parser.add_argument_group("what looks at the pictures"), "says what is back", "nearest")


def parse(args: argparse.Namespace) -> Request:
    """Reads the files that the arguments name.

    Raises FileNotFoundError for one that is missing, ValueError for one that is wrong, attacks, prompts or numbers that
    cannot be used, a folder that cannot be written to, or several processes.
    """
    if current().count > 1:
        raise ValueError("attacks run in one process; start the command without a launcher")
    check_counts(args, "seeds", "examples", "steps")
    patches = read_patches(args.patch)
    check_model_names(list(patches))
    others, forget = map(distinct, read_prompts(args.prompts))
    sampling = sampling_of(args, next(iter(patches.values())).record)
    task = Task(forget, others, sampling, args.seed, args.seeds, args.examples, distinct(args.wording))
    check_plain((*others, *forget, *task.wordings))
    domains = read_domains(args.judge, args.labels)
    if domains:
        target_of(domains, forget)
    check_writable(args.out / "figures.json")
    return Request(
        source=model_source(args),
        patches=patches,
        strength=args.strength,
        attacks=parse_attacks(args.attacks),
        task=task,
        judge=JudgeChoice(args.judge, domains, args.models),
        clip=args.clip,
        out=args.out,
    )


def run(args: argparse.Namespace) -> None:
    """Writes figures.json, figures.csv, attacks.md, heat.png and back.png to --out, and prints the table."""
    request = parse(args)
    model = request.source.load()
    for patch in request.patches.values():
        patch.check_base(model.fingerprint())
    check_measurable(request.task.sampling.width, request.task.sampling.height, model.multiple)
    folders = request.judge.folders
    judge = judge_named(request.judge, model, lambda: clip_named(request.clip, folders)(request.source.device))
    unlearned = {name: opened(model, patch, request.strength) for name, patch in request.patches.items()}
    settings = {
        "model": request.source.model,
        **{name: patch.digest for name, patch in request.patches.items()},
        "precision": request.source.precision,
        "strength": request.strength,
    }
    with bar("attacking", "setting") as shown:
        examiner = Examiner(request.attacks, judge, request.task, moving(shown))
        examination = examiner.examine(opened(model), unlearned, settings)
    print(write_figures(request.out, examination))


def opened(model: DiffusersModel, patch: UnlearningPatch | None = None, strength: float = 1.0) -> Opened:
    """The base with a patch on it, or without."""

    @contextmanager
    def open_() -> Iterator[Host]:
        host = Host(model, lambda latents: model.decode(latents).cpu())
        if patch is None:
            yield host
        else:
            with model.patched(patch, strength):
                yield host

    return open_


def write_figures(folder: Path, examination: Examination) -> str:
    """All files; returns the table."""
    from ..reports.attacks import attack_heat, comeback_sheet
    from ..reports.files import attack_report, write_report
    from ..reports.png import save_picture
    from ..reports.tables import attack_page

    write_report(folder / "figures", attack_report(examination))
    page = attack_page(examination)
    with write_atomically(folder / "attacks.md") as partial:
        partial.write_text(f"{page}\n", encoding="utf-8")
    save_picture(attack_heat(examination), folder / "heat.png")
    save_picture(comeback_sheet(examination), folder / "back.png")
    return page
