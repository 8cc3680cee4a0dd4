"""Judges on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files import read_text
from ..metrics.clip import SHIPPED, Clip
from ..metrics.forgetting import Domains, Judge

if TYPE_CHECKING:
    from argparse import _ArgumentGroup

    from ..hosts.base import DiffusersModel

JUDGES = ("nearest", "clip", "diffusion", "nudenet")
LABELLED = ("clip", "diffusion")  # those that choose from the user's labels


class JudgeChoice(NamedTuple):
    """Which judge."""

    name: str  # of JUDGES
    domains: Domains | None  # that LABELLED choose from
    folders: Sequence[Path]  # with weights


def add_judge_arguments(group: _ArgumentGroup, use: str, default: str = "none") -> None:
    """What says which judge; `use` says what for. Without a judge as the default there may be none."""
    choices = JUDGES if default in JUDGES else (default, *JUDGES)
    group.add_argument(
        "--judge", choices=choices, default=default, help=f"{use}; nearest: shipped model; nudenet: nudity"
    )
    group.add_argument(
        "--labels", type=Path, help="what clip and diffusion choose from: lines such as 'a {}: cat, dog'"
    )
    group.add_argument("--clip", default=SHIPPED, help="open_clip model: shipped, a folder, or 'name weights'")
    group.add_argument(
        "--models", type=Path, action="append", default=[], help="folder with LPIPS, CLIP or Inception; may be repeated"
    )


def read_domains(judge: str, labels: Path | None) -> Domains | None:
    """What a judge chooses from; None for those that need no labels.

    Raises ValueError for no or bad labels, FileNotFoundError for a missing file, and as `check_installed` does.
    """
    from ..metrics.judges import parse_domains
    from ..metrics.nudenet import check_installed

    if judge == "nudenet":
        check_installed()
    if judge not in LABELLED:
        return None
    if labels is None:
        raise ValueError(f"--judge {judge} needs --labels, a file with lines such as 'a photo of a {{}}: cat, dog'")
    return parse_domains(read_text(labels))


def judge_named(choice: JudgeChoice, model: DiffusersModel, clip: Callable[[], Clip]) -> Judge:
    """The judge that is asked for; a diffusion classifier looks with `model`, zero-shot CLIP with what `clip` gives.

    Raises ValueError as `check_installed` does.
    """
    from ..metrics.judges import ClipJudge, DiffusionClassifier
    from ..metrics.nudenet import NudeNetJudge
    from ..tiny.judge import Judge as NearestPicture

    if choice.name == "nudenet":
        return NudeNetJudge()
    if choice.domains is None:
        return NearestPicture.load(folders=choice.folders)
    if choice.name == "clip":
        return ClipJudge(clip(), choice.domains)
    return DiffusionClassifier(model, model.latents, choice.domains)
