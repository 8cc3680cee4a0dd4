"""Measures unlearning patches against their base model: integrity, forgetting, CLIPScore and Fréchet distances."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..prompts import check_measured, lines
from .shared import DEVICE_HELP, MODEL_HELP, PRECISIONS, device_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..hosts.diffusers import DiffusersModel
    from ..metrics.cache import PictureCache
    from ..metrics.clip import Clip
    from ..metrics.drawing import Draw, Plan, Shot
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
    whole.add_argument("--base", required=True, help=MODEL_HELP)
    whole.add_argument("--config", type=Path, help="diffusers folder of the family, when the base is a file")
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
    whole.add_argument(
        "--models", type=Path, action="append", default=[], help="folder with LPIPS, CLIP or Inception; may be repeated"
    )
    share.add_argument("--seed", type=int, default=1000, help="first seed of each prompt")
    share.add_argument("--seeds", type=int, default=2, help="pictures of each retain prompt")
    share.add_argument("--forget-seeds", type=int, default=4, help="pictures of each forget prompt")
    share.add_argument("--steps", type=int, default=25, help="Euler steps")
    share.add_argument("--cfg", type=float, default=7.0, help="guidance scale")
    share.add_argument("--width", type=int, default=512, help="pixels")
    share.add_argument("--height", type=int, default=512, help="pixels")
    share.add_argument("--device", help=DEVICE_HELP)
    share.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the model")
    share.add_argument("--cache", type=Path, help="folder that keeps pictures for the next run")


def run(args: argparse.Namespace) -> None:
    """Writes figures.json, figures.csv, leaderboard.md, plot.png and sheet.png to --out, and prints the leaderboard."""
    from tempfile import TemporaryDirectory

    from ..metrics.drawing import Plan
    from ..metrics.quality import check_pictures

    for name in ("seeds", "forget_seeds", "steps"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')}: {getattr(args, name)}; must be 1 or more")
    plan = Plan.of(*read_prompts(args.prompts), args.seed, args.seeds, args.forget_seeds)
    check_pictures(plan)
    patches = read_patches(args.patch)
    with TemporaryDirectory() as temporary:
        print(evaluate(args, plan, patches, args.cache or Path(temporary)))


def evaluate(args: argparse.Namespace, plan: Plan, patches: Mapping[str, UnlearningPatch], cache_folder: Path) -> str:
    """Does the work and returns the leaderboard."""
    import torch

    from ..hosts.diffusers import DiffusersModel
    from ..metrics import evaluation
    from ..metrics.cache import PictureCache
    from ..metrics.clip import clip_named
    from ..metrics.drawing import check_measurable
    from ..metrics.figures import comparison_sheet, tradeoff_plot
    from ..metrics.inception import Fid
    from ..metrics.lettering import to_image
    from ..metrics.lpips import SMALLEST_SIDE, Lpips
    from ..metrics.quality import Networks
    from ..metrics.report import write_report
    from ..sampling import Sampling

    evaluation.check_names(list(patches))
    device = device_of(args)
    alexnet = Lpips("alex", args.models, device)
    lpips = alexnet if args.backbone == "alex" else Lpips(args.backbone, args.models, device)
    clip = clip_named(args.clip, args.models)(device)
    networks = Networks(alexnet, clip, Fid(args.models, device) if args.fid else None)
    model = DiffusersModel.load(args.base, device, getattr(torch, args.precision), args.config)
    for patch in patches.values():
        patch.check_base(model.weights(), model.changes())
    smallest = max(SMALLEST_SIDE["alex"], SMALLEST_SIDE[args.backbone])
    check_measurable(args.width, args.height, model.multiple, smallest)
    easel = Easel(model, Sampling(args.steps, args.cfg, args.width, args.height), PictureCache(cache_folder))
    settings = {"model": args.base, **easel.settings(), "precision": args.precision, "strength": args.strength}
    candidates = {
        name: evaluation.Candidate(easel.cached(patch, args.strength), {"patch": patch.digest})
        for name, patch in patches.items()
    }
    base = easel.cached()
    judge = judge_named(args, model, clip)
    args.out.mkdir(parents=True, exist_ok=True)
    evaluations = evaluation.evaluate(base, candidates, lpips, networks, plan, settings, judge, easel.bare())
    write_report(args.out / "figures", *evaluation.report(evaluations))
    table = evaluation.leaderboard(evaluations)
    (args.out / "leaderboard.md").write_text(f"{table}\n", encoding="utf-8")
    to_image(tradeoff_plot(evaluations)[0]).save(args.out / "plot.png")
    draws = {name: candidate.draw for name, candidate in candidates.items()}
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


def judge_named(args: argparse.Namespace, model: DiffusersModel, clip: Clip) -> Judge | None:
    """The judge that --judge asks for. Raises ValueError for missing labels."""
    from ..metrics.judges import ClipJudge, DiffusionClassifier, parse_domains
    from ..tiny.judge import Judge as NearestPicture

    if args.judge == "none":
        return None
    if args.judge == "nearest":
        return NearestPicture.load(folders=args.models)
    if args.labels is None:
        raise ValueError(
            f"--judge {args.judge} needs --labels, a file with lines such as 'a photo of a {{}}: cat, dog'"
        )
    domains = parse_domains(args.labels.read_text(encoding="utf-8"))
    if args.judge == "clip":
        return ClipJudge(clip, domains)
    return DiffusionClassifier(model, model.latents, domains)


class Easel:
    """Draws with a model and any patch on it, through one cache."""

    def __init__(self, model: DiffusersModel, sampling: Sampling, cache: PictureCache) -> None:
        from ..metrics.cache import digest, tensors

        self._model, self._sampling, self._cache = model, sampling, cache
        self._text_digest = functools.cache(lambda prompt: digest(tensors(model.encode([prompt]))))
        self._weights = {
            "base": digest(model.denoiser.state_dict()),
            "VAE": digest(model.pipeline.vae.state_dict()),
            "text encoder": self._text_digest(""),
        }

    def settings(self) -> dict[str, Any]:
        """How pictures are drawn and with which weights, for a report."""
        return {**self._sampling.settings(), **{name: value[:16] for name, value in self._weights.items()}}

    def bare(self, patch: UnlearningPatch | None = None, strength: float = 1.0) -> Draw:
        """Draws everything again, with the patched model or the base."""
        from ..sampling import draw

        def draw_patched(shots: Sequence[Shot]) -> Tensor:
            if patch is None:
                return draw(self._model, shots, self._sampling)
            with self._model.patched(patch, strength):
                return draw(self._model, shots, self._sampling)

        return draw_patched

    def cached(self, patch: UnlearningPatch | None = None, strength: float = 1.0) -> Draw:
        """Draws what is not in the cache."""
        import torch

        from ..metrics.cache import digest

        pipeline = self._model.pipeline
        parts = {"denoiser": self._model.denoiser, "VAE": pipeline.vae, "noise schedule": pipeline.scheduler}
        key = {
            **self._sampling.settings(),
            **self._weights,
            "patch": patch and [digest(patch.tensors), strength],
            "configuration": {name: str(sorted(part.config.items())) for name, part in parts.items()},
            "device": str(self._model.device),
            "torch": torch.__version__,
        }
        return self._cache.drawing(
            lambda prompt: {**key, "cond": self._text_digest(prompt)}, self.bare(patch, strength)
        )
