"""Makes a model forget, and writes the patch and its recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import __version__
from ..encodings import readable
from ..hosts.texts import check_plain
from ..methods import METHODS, ClosedForm, Method
from ..model import SELECTIONS
from ..presets import CHOICES, SUMMARIES
from ..processes import current
from ..prompts import Prompts, all_prompts, lines
from ..recipe import Recipe, check_recipe_path, recipe_path, save_recipe, training
from ..settings import USUAL_SIDE, Settings
from ..unlearn import unlearn
from .bars import bar, moving
from .shared import (
    PRECISIONS,
    SIDES,
    ModelSource,
    add_model_arguments,
    add_precision_argument,
    check_patch_file,
    model_source,
)

if TYPE_CHECKING:
    from ..hosts.base import DiffusersModel


USUAL_SIDES = f"without it {USUAL_SIDE}, or the model's own where that is less"


class Collected(argparse.Action):
    """As argparse's `append`, in place of the default."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if before is self.default else before), values])


@dataclass(frozen=True)
class Request:
    """What the command is asked to do."""

    source: ModelSource
    method: Method
    prompts: Prompts
    settings: Settings
    out: Path
    device: str | None
    retain_given: bool  # whether the retain prompts are the user's
    open_sides: tuple[str, ...]  # of `Settings`, which the model decides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `unlearn train`; those of training are the fields of `Settings`."""
    parser.add_argument("--recipe", type=Path, help="TOML file with any of these options; those given here win")
    parser.add_argument(
        "--preset",
        choices=CHOICES,
        help="method, options and training in one word; what is given beside it wins. "
        + ". ".join(f"{name}: {summary}" for name, summary in SUMMARIES.items()),
    )
    add_model_arguments(parser, "--model", required=False)
    add_precision_argument(parser)
    parser.add_argument("--method", choices=METHODS, default=next(iter(METHODS)), help="see docs/methods.md")
    _add_texts(parser, "--option", "of the method; may be repeated", metavar="NAME=VALUE")
    _add_texts(parser, "--forget", "prompt to forget, or 'a cat => a dog'; may be repeated")
    _add_texts(parser, "--overwrite", "what to draw instead; may be repeated")
    _add_texts(parser, "--retain", "prompt to hold; may be repeated")
    parser.add_argument(
        "--out", type=Path, default=Path("patch.safetensors"), help="file to write, and beside it its recipe, as .toml"
    )
    parser.add_argument("--weights", choices=SELECTIONS, help="to train; without it those of the method's reference")
    for spec in fields(Settings):
        if spec.metadata:
            name, help = f"--{spec.name.replace('_', '-')}", spec.metadata["help"]
            is_side = spec.name in SIDES
            default, help = (None, f"{help}; {USUAL_SIDES}") if is_side else (spec.default, help)
            parser.add_argument(name, type=type(spec.default), default=default, help=help)
    parser.set_defaults(recipe_options={})


def _add_texts(parser: argparse.ArgumentParser, flag: str, help: str, metavar: str | None = None) -> None:
    parser.add_argument(flag, action=Collected, default=[], help=help, metavar=metavar)


def defaults_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments' defaults by --preset, which wins over --recipe, as that does over the preset that it names.

    Raises as `Recipe.load`.
    """
    recipe = read_recipe(args.recipe) if args.recipe else Recipe()
    recipe = Recipe(forget=args.forget or None).over(recipe).completed(args.preset)
    return {**recipe.values(), "recipe_options": {recipe.method: recipe.options}}


def read_recipe(path: Path) -> Recipe:
    """A recipe's file. Raises as `Recipe.load`, and ValueError for an unknown precision."""
    recipe = Recipe.load(path)
    if recipe.precision not in (None, *PRECISIONS):
        raise ValueError(f"{path}: precision: {recipe.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    return recipe


def parse(args: argparse.Namespace) -> Request:
    """Raises ValueError for a missing model, prompts, options or settings that cannot be used, or a bad name of the
    file to write.
    """
    if args.model is None:
        raise ValueError("--model: missing; name the base model, or a --recipe that does")
    prompts = Prompts.parse(*("\n".join(texts) for texts in (args.forget, args.overwrite, args.retain)))
    method = method_of(args.method, args.recipe_options.get(args.method, {}), args.option)
    chosen = {spec.name: getattr(args, spec.name) for spec in fields(Settings)}
    open_sides = tuple(side for side in SIDES if chosen[side] is None)
    chosen = {name: value for name, value in chosen.items() if name not in open_sides}
    settings = Settings(**{**chosen, "weights": args.weights or method.weights})
    method.check_settings(settings)
    check_patch_file(args.out)
    check_recipe_path(recipe_path(args.out))
    check_plain(all_prompts(prompts))
    source = model_source(args)
    retain_given = set(prompts.retain) <= set(lines("\n".join(args.retain)))
    return Request(source, method, prompts, settings, args.out, args.device, retain_given, open_sides)


def recipe_of(source: ModelSource, recipe: Recipe, device: str | None) -> Recipe:
    """With the model, whose files are found from any folder, and the device that is asked for."""
    local = Path(source.model).absolute()
    model = str(local) if local.exists() else source.model
    config = str(source.config.absolute()) if source.config else None
    return replace(recipe, model=model, config=config, device=device, precision=source.precision)


def made_with() -> list[str]:
    """What else the bits of a patch depend on."""
    processes, threads = current().count, torch.get_num_threads()
    return [f"unlearning {__version__}, torch {torch.__version__}; processes: {processes}, threads of each: {threads}"]


def run(args: argparse.Namespace) -> None:
    """Trains, and writes --out and its recipe; of several processes, the main one does so."""
    request, is_main = parse(args), current().is_main
    if isinstance(request.method, ClosedForm) and not is_main:
        return
    model = request.source.load()
    request = completed(request, model)
    with bar("looking at the base model", "step") as shown:
        patch = unlearn(model, request.method, request.prompts, request.settings, moving(shown))
    if is_main:
        patch.save(request.out)
        recipe = recipe_of(request.source, training(request.method, request.prompts, request.settings), request.device)
        save_recipe(recipe_path(request.out), recipe.text(made_with()))
        print(request.out)


def completed(request: Request, model: DiffusersModel) -> Request:
    """With what the user leaves to the model: the pictures' size, and which of the usual prompts it can hold."""
    sides: dict[str, Any] = dict.fromkeys(request.open_sides, model.usual_side)
    settings = replace(request.settings, **sides)
    if request.retain_given:
        return replace(request, settings=settings)
    retain = tuple(prompt for prompt in request.prompts.retain if readable(model, [prompt]))
    if current().is_main:
        print(f"no retain prompts of yours: {len(retain)} everyday ones are held, named in the recipe", file=sys.stderr)
    return replace(request, settings=settings, prompts=replace(request.prompts, retain=retain))


def method_of(name: str, recipe: dict[str, Any], options: Sequence[str]) -> Method:
    """The method with options of a recipe, and those such as `help_weight=3` over them.

    Raises ValueError for an unknown one or no number.
    """
    kind = METHODS[name]
    known: dict[str, Any] = {spec.name: type(spec.default) for spec in fields(kind)}
    values = {key: known[key](value) for key, value in recipe.items()}
    for option in options:
        key, _, value = option.partition("=")
        if key not in known:
            raise ValueError(f"--option {option}: {name} has no {key!r}; it has {', '.join(known)}")
        try:
            values[key] = known[key](value)
        except ValueError as error:
            raise ValueError(f"--option {option}: {value!r} is no number") from error
    return kind(**values)
