"""Measures unlearning patches against their base model: integrity, forgetting, CLIPScore and Fréchet distances."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..prompts import check_measured, lines

if TYPE_CHECKING:
    from torch import Tensor

    from ..hosts.diffusers import DiffusersModel
    from ..metrics.cache import PictureCache
    from ..metrics.drawing import Draw, Shot
    from ..metrics.forgetting import Judge
    from ..patch import UnlearningPatch
    from ..sampling import Sampling

SECTIONS = ("retain", "forget")
BACKBONES = ("alex", "vgg", "squeeze")
JUDGES = ("none", "nearest", "clip", "diffusion")


class PromptFile(NamedTuple):
    """The prompts to measure."""

    retain: tuple[str, ...]
    forget: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn evaluate`."""
    whole, share = parser.add_argument_group("what to measure"), parser.add_argument_group("how pictures are drawn")
    whole.add_argument(
        "--base", type=Path, required=True, help="diffusers folder or safetensors file of the base model"
    )
    whole.add_argument("--patch", type=Path, required=True, action="append", help="patch file; may be repeated")
    whole.add_argument(
        "--prompts", type=Path, required=True, help="text file: one prompt a line, under [retain] and [forget]"
    )
    whole.add_argument("--out", type=Path, default=Path("evaluation"), help="folder for tables, figures and pictures")
    whole.add_argument("--strength", type=float, default=1.0, help="how much of each patch to apply")
    whole.add_argument("--backbone", choices=BACKBONES, default="alex", help="LPIPS network")
    whole.add_argument("--judge", choices=JUDGES, default="none", help="for UA, IRA and CRA; nearest: shipped model")
    whole.add_argument(
        "--labels", type=Path, help="what clip and diffusion choose from: lines such as 'a {}: cat, dog'"
    )
    whole.add_argument("--clip", default="shipped", help="open_clip model: shipped, a folder, or 'name weights'")
    whole.add_argument("--fid", action="store_true", help="FID too; needs Inception weights")
    whole.add_argument("--weights", type=Path, action="append", default=[], help="folder with LPIPS, CLIP or Inception")
    share.add_argument("--seed", type=int, default=1000, help="first seed of each prompt")
    share.add_argument("--seeds", type=int, default=2, help="pictures of each retain prompt")
    share.add_argument("--forget-seeds", type=int, default=4, help="pictures of each forget prompt")
    share.add_argument("--steps", type=int, default=25, help="Euler steps")
    share.add_argument("--cfg", type=float, default=7.0, help="guidance scale")
    share.add_argument("--width", type=int, default=512, help="pixels")
    share.add_argument("--height", type=int, default=512, help="pixels")
    share.add_argument("--device", default="cpu")
    share.add_argument("--cache", type=Path, help="folder that keeps pictures for the next run")


def run(args: argparse.Namespace) -> None:
    """Writes figures.json, figures.csv, leaderboard.md, plot.png and sheet.png to --out, and prints the leaderboard."""
    from tempfile import TemporaryDirectory

    prompts = read_prompts(args.prompts)
    patches = read_patches(args.patch)
    for name in ("seeds", "forget_seeds", "steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: {getattr(args, name)}; must be 1 or more")
    with TemporaryDirectory() as temporary:
        print(evaluate(args, prompts, patches, args.cache or Path(temporary)))


def evaluate(
    args: argparse.Namespace, prompts: PromptFile, patches: Mapping[str, UnlearningPatch], cache_folder: Path
) -> str:
    """Does the work and returns the leaderboard."""
    from ..hosts.diffusers import DiffusersModel
    from ..metrics import evaluation
    from ..metrics.cache import PictureCache
    from ..metrics.clip import clip_named
    from ..metrics.drawing import check_size
    from ..metrics.figures import comparison_sheet, tradeoff_plot
    from ..metrics.inception import Fid
    from ..metrics.lettering import to_image
    from ..metrics.lpips import SMALLEST_SIDE, Lpips
    from ..metrics.report import write_report
    from ..sampling import Sampling

    smallest = max(SMALLEST_SIDE["alex"], SMALLEST_SIDE[args.backbone])
    lpips, alexnet = (Lpips(name, args.weights, args.device) for name in (args.backbone, "alex"))
    clip = clip_named(args.clip, args.weights)(args.device)
    fid = Fid(args.weights, args.device) if args.fid else None
    model = DiffusersModel.load(args.base, args.device)
    for patch in patches.values():
        patch.check_base(model.weights(), model.changes())
    check_size(args.width, args.height, model.downscale, smallest)
    sampling = Sampling(args.steps, args.cfg, args.width, args.height)
    cache = PictureCache(cache_folder)
    draws = {name: cached(cache, model, patch, args.strength, sampling) for name, patch in patches.items()}
    base = cached(cache, model, None, 0.0, sampling)
    evaluations = evaluation.evaluate(
        base,
        draws,
        lpips,
        alexnet,
        prompts.retain,
        prompts.forget,
        range(args.seed, args.seed + args.seeds),
        range(args.seed, args.seed + args.forget_seeds),
        {"model": str(args.base), **sampling.settings(), "precision": "float32", "strength": args.strength},
        judge_named(args.judge, args, model),
        clip,
        fid,
        drawing(model, None, 0.0, sampling),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    write_report(args.out / "figures", *evaluation.report(evaluations))
    table = evaluation.leaderboard(evaluations)
    (args.out / "leaderboard.md").write_text(f"{table}\n", encoding="utf-8")
    to_image(tradeoff_plot(evaluations)[0]).save(args.out / "plot.png")
    to_image(comparison_sheet(base, draws, evaluations)[0]).save(args.out / "sheet.png")
    return table


def read_prompts(path: Path) -> PromptFile:
    """Prompts under `[retain]` and `[forget]`; those before any heading are retain prompts.

    Raises ValueError for another heading, no retain prompt, or a prompt under both.
    """
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    section = "retain"
    for line in lines(path.read_text(encoding="utf-8")):
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
    """The patches under their files' names. Raises ValueError for two of one name, or an unreadable file."""
    from ..patch import UnlearningPatch

    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"--patch {missing[0]}: there is no such file")
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise ValueError("--patch: two files have the same name; the name stands for the model in every table")
    return {name: UnlearningPatch.load(path) for name, path in zip(names, paths, strict=True)}


def judge_named(name: str, args: argparse.Namespace, model: DiffusersModel) -> Judge | None:
    """The judge that --judge asks for. Raises ValueError for missing labels."""
    from ..metrics.clip import clip_named
    from ..metrics.judges import ClipJudge, DiffusionClassifier, parse_domains
    from ..tiny.judge import Judge as NearestPicture

    if name == "none":
        return None
    if name == "nearest":
        return NearestPicture.load(folders=args.weights)
    if args.labels is None:
        raise ValueError(f"--judge {name} needs --labels, a file with lines such as 'a photo of a {{}}: cat, dog'")
    domains = parse_domains(args.labels.read_text(encoding="utf-8"))
    if name == "clip":
        return ClipJudge(clip_named(args.clip, args.weights)(args.device), domains)
    return DiffusionClassifier(model, model.latents, domains)


def drawing(model: DiffusersModel, patch: UnlearningPatch | None, strength: float, sampling: Sampling) -> Draw:
    """Draws with the patched model, or the bare one."""
    from ..sampling import draw

    def draw_patched(shots: Sequence[Shot]) -> Tensor:
        if patch is None:
            return draw(model, shots, sampling)
        with model.patched(patch, strength):
            return draw(model, shots, sampling)

    return draw_patched


def cached(
    cache: PictureCache, model: DiffusersModel, patch: UnlearningPatch | None, strength: float, sampling: Sampling
) -> Draw:
    """The same through the cache."""
    import torch

    from ..metrics.cache import digest, tensors

    key = {
        **sampling.settings(),
        "weights": digest(model.denoiser.state_dict(), model.pipeline.vae.state_dict()),
        "patch": patch and digest(patch.tensors),
        "strength": strength,
        "noise schedule": {name: str(value) for name, value in model.pipeline.scheduler.config.items()},
        "device": str(model.device),
        "torch": torch.__version__,
    }

    def key_of(prompt: str) -> dict[str, Any]:
        return {**key, "cond": digest(tensors(model.encode([prompt, ""])))}

    return cache.drawing(key_of, drawing(model, patch, strength, sampling))
