"""Measures unlearning patches against their base model: integrity, forgetting, CLIPScore and Fréchet distances."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import check_writable, write_atomically
from ..hosts.texts import check_plain
from ..metrics.backbones import BACKBONES
from ..metrics.evaluation import Candidate, Evaluation, check_names, evaluate
from ..metrics.forgetting import Domains, Judge, target_of
from ..metrics.lpips import Lpips
from ..metrics.plan import Plan, check_measurable, pictures_at_once
from ..metrics.quality import Networks, check_pictures
from ..metrics.retention import Comparison, count_floor
from ..patch import UnlearningPatch
from ..processes import current
from ..sampling import Sampling
from .bars import bar
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
    from ..hosts.pictures import Variant
    from ..metrics.cache import PictureCache
    from ..metrics.studio import Studio

PICTURES = "pictures"  # folder in --out


@dataclass(frozen=True)
class Instruments:
    """What looks at the pictures."""

    backbone: str  # of LPIPS
    clip: str
    fid: bool
    judge: str
    domains: Domains | None  # that clip and diffusion choose from
    folders: Sequence[Path]  # with weights


@dataclass(frozen=True)
class Request:
    """What the command is asked to do."""

    source: ModelSource
    patches: Mapping[str, UnlearningPatch]
    strength: float
    plan: Plan
    sampling: Sampling
    instruments: Instruments
    out: Path
    cache: Path  # folder of pictures
    keep: bool  # what is in it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn evaluate`."""
    add_model_arguments(parser, "--base")
    add_precision_argument(parser)
    parser.add_argument("--patch", type=Path, required=True, action="append", help="patch file; may be repeated")
    parser.add_argument("--strength", type=strength, default=1.0, help="how much of each patch to apply")
    parser.add_argument(
        "--prompts", type=Path, required=True, help="text file: one prompt per line, under [retain] and [forget]"
    )
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each retain prompt")
    parser.add_argument("--forget-seeds", type=int, default=4, help="pictures of each forget prompt")
    parser.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for tables, figures and pictures")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the pictures that an evaluation has left in --out"
    )
    parser.add_argument("--cache", type=Path, help="folder that keeps pictures for any evaluation, in place of --out")
    add_sampling_arguments(parser)
    looking = parser.add_argument_group("what looks at the pictures")
    looking.add_argument("--backbone", choices=BACKBONES, default="alex", help="LPIPS network")
    add_judge_arguments(looking, "for UA, IRA and CRA")
    looking.add_argument("--fid", action="store_true", help="FID too; needs Inception weights")


def parse(args: argparse.Namespace) -> Request:
    """Reads the files that the arguments name. Raises FileNotFoundError for one that is
    missing, ValueError for one that is wrong, a prompt in ComfyUI's syntax or unknown to the labels, a bad number, or a
    folder that cannot be written to.
    """
    check_counts(args, "seeds", "forget_seeds", "steps")
    plan = Plan.of(*read_prompts(args.prompts), args.seed, args.seeds, args.forget_seeds)
    check_pictures(plan)
    check_plain(plan.retain + plan.forget)
    domains = read_domains(args.judge, args.labels)
    if domains and plan.forget:
        target_of(domains, plan.forget)
    patches = read_patches(args.patch)
    check_names(list(patches))
    cache = args.cache or args.out / PICTURES
    for folder in (args.out, cache):
        check_writable(folder / "figures.json")
    return Request(
        source=model_source(args),
        patches=patches,
        strength=args.strength,
        plan=plan,
        sampling=sampling_of(args, next(iter(patches.values())).record),
        instruments=Instruments(args.backbone, args.clip, args.fid, args.judge, domains, args.models),
        out=args.out,
        cache=cache,
        keep=args.resume or args.cache is not None,
    )


def run(args: argparse.Namespace) -> None:
    """Writes figures.json, figures.csv, leaderboard.md, plot.png and sheet.png to --out, and prints the leaderboard.

    Of several processes, the main one does so.
    """
    from ..hosts.pictures import PipelineDrawing, Variant
    from ..metrics.studio import Studio

    request = parse(args)
    networks, lpips = load_networks(request.instruments, request.source.device)
    model = request.source.load()
    model.check_prompts(request.plan.retain + request.plan.forget)
    for patch in request.patches.values():
        patch.check_base(model.fingerprint())
    smallest = max(BACKBONES[name].smallest_side for name in ("alex", request.instruments.backbone))
    check_measurable(request.sampling.width, request.sampling.height, model.multiple, smallest)
    comparison = Comparison(lpips, request.plan, judge_of(request, model, networks))
    variants = {name: Variant(patch, request.strength) for name, patch in request.patches.items()}
    with bar("drawing", "picture") as shown:
        studio = Studio(PipelineDrawing(model, request.sampling, shown.update), picture_cache(request))
        shown.reset(count_drawn(studio, variants.values(), request.plan))
        table = measure(studio, variants, comparison, networks, request)
    if current().is_main:
        print(table)


def count_drawn(studio: Studio[Variant], variants: Iterable[Variant], plan: Plan) -> int:
    """How many pictures `measure` draws in the main process: those of its part that are not kept from before, and the
    base's again.
    """
    from ..hosts.pictures import Variant

    own = plan.chunks[:: current().count]
    missing = sum(studio.count_missing(each, chunk) for each in (Variant(), *variants) for chunk in own)
    return missing + count_floor(plan)


def measure(
    studio: Studio[Variant],
    variants: Mapping[str, Variant],
    comparison: Comparison,
    networks: Networks,
    request: Request,
) -> str:
    """Measures the variants. The main process writes everything to the request's folder, and returns the leaderboard;
    others return nothing.
    """
    from ..hosts.pictures import Variant
    from ..reports.plots import comparison_sheet
    from ..reports.png import save_picture

    base, draws = studio.cached(Variant()), {name: studio.cached(variant) for name, variant in variants.items()}
    candidates = {name: Candidate(draws[name], {"patch": patch.digest}) for name, patch in request.patches.items()}
    settings = {
        "model": request.source.model,
        **studio.settings(Variant()),
        "precision": request.source.precision,
        "strength": request.strength,
    }
    evaluations = evaluate(base, candidates, comparison, networks, settings, studio.bare(Variant()))
    if not current().is_main:
        return ""
    table = write_figures(request.out, evaluations)
    save_picture(comparison_sheet(base, draws, evaluations), request.out / "sheet.png")
    return table


def write_figures(folder: Path, evaluations: Sequence[Evaluation]) -> str:
    """All files but the sheet; returns the leaderboard."""
    from ..reports.files import comparison_report, write_report
    from ..reports.plots import tradeoff_plot
    from ..reports.png import save_picture
    from ..reports.tables import leaderboard

    write_report(folder / "figures", comparison_report(evaluations))
    table = leaderboard(evaluations)
    with write_atomically(folder / "leaderboard.md") as partial:
        partial.write_text(f"{table}\n", encoding="utf-8")
    save_picture(tradeoff_plot(evaluations), folder / "plot.png")
    return table


def picture_cache(request: Request) -> PictureCache:
    """The request's folder of pictures, empty when those that are there are not to be kept."""
    from ..metrics.cache import PictureCache

    if current().is_main and not request.keep:
        PictureCache(request.cache).clear()
    current().wait()
    at_once = pictures_at_once(request.sampling.width, request.sampling.height)
    return PictureCache(request.cache, math.inf, at_once)


def load_networks(instruments: Instruments, device: str) -> tuple[Networks, Lpips]:
    """What embeds pictures, and LPIPS on the backbone. Raises FileNotFoundError for weights that are not to
    be had, ValueError for damaged ones or a CLIP name of another form.
    """
    from ..metrics.clip import clip_named
    from ..metrics.inception import Fid

    folders = instruments.folders
    alexnet = Lpips("alex", folders, device)
    lpips = alexnet if instruments.backbone == "alex" else Lpips(instruments.backbone, folders, device)
    clip = clip_named(instruments.clip, folders)(device)
    return Networks(alexnet, clip, Fid(folders, device) if instruments.fid else None), lpips


def judge_of(request: Request, model: DiffusersModel, networks: Networks) -> Judge | None:
    """The judge that is asked for."""
    instruments = request.instruments
    if instruments.judge == "none":
        return None
    return judge_named(
        JudgeChoice(instruments.judge, instruments.domains, instruments.folders), model, lambda: networks.clip
    )
