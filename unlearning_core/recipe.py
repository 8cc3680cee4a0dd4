"""A training run as a TOML file: each option of `unlearn train` by its name, and those of the method in [options]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from .files import check_writable, read_text, write_atomically
from .methods import METHODS, Method, name_of
from .patch import Record
from .presets import preset_named
from .prompts import ARROW, Prompts, lines
from .settings import CUSTOM, Settings
from .typed import read

SUFFIX = ".toml"
HEADING = "# An unlearning recipe; `unlearn train --recipe FILE` and the node Unlearn From Recipe repeat the run."
SETTINGS: dict[str, Any] = {spec.name: type(spec.default) for spec in fields(Settings)}


class Run(NamedTuple):
    """What a method is asked to do."""

    method: Method
    prompts: Prompts
    settings: Settings


@dataclass(frozen=True)
class Recipe:
    """What a run is given; what is None is left to others.

    Raises ValueError for a method or an option that is unknown, an option or a setting of another type or out of its
    range, and options without their method.
    """

    model: str | None = None
    config: str | None = None
    device: str | None = None
    precision: str | None = None
    out: str | None = None
    method: str | None = None
    forget: list[str] | None = None
    overwrite: list[str] | None = None
    retain: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of the method
    settings: dict[str, Any] = field(default_factory=dict)  # fields of `Settings`, in a file beside the others

    def __post_init__(self) -> None:
        read(Settings, self.settings)
        if self.method is not None and self.method not in METHODS:
            raise ValueError(f"method: {self.method!r} is unknown; choose one of {', '.join(METHODS)}")
        if self.method is not None:
            read(METHODS[self.method], self.options, "options")
        elif self.options:
            raise ValueError("options: without a method; write which method they are of, such as method = 'ovw'")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """From a file.

        Raises OSError when it cannot be read, ValueError, which names file and key, when it is no recipe.
        """
        text = read_text(path)
        try:
            table = _parse(text)
            settings = {name: table.pop(name) for name in [*table] if name in SETTINGS}
            if "settings" in table:
                raise ValueError("'settings' is unknown; write steps and the others beside model and method")
            preset_named(settings.get("preset", CUSTOM))
            return read(cls, {**table, "settings": settings})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def text(self, comments: Iterable[str] = ()) -> str:
        """The file's content, with lines of comment."""
        from tomlkit import dumps

        said = {name: value for name, value in asdict(self).items() if value not in (None, {})}
        options, settings = (said.pop(name, {}) for name in ("options", "settings"))
        table = {**said, **settings, **({"options": options} if options else {})}
        return "\n".join([HEADING, *(f"# {comment}" for comment in comments), dumps(table)])

    def over(self, other: Recipe) -> Recipe:
        """This one, with what it leaves open taken from another. Options are another's where the method is the same."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        method = self.method or other.method
        options = {**(other.options if other.method == method else {}), **self.options}
        return replace(
            other, **{**said, "method": method, "options": options, "settings": {**other.settings, **self.settings}}
        )

    def completed(self, preset: str | None = None) -> Recipe:
        """With the values of the preset that it names, or with those of another one in the place of its own.

        Raises ValueError for an unknown preset.
        """
        named = preset or self.settings.get("preset", CUSTOM)
        decided = of_preset(named, len(lines("\n".join(self.forget or []))))
        return decided.over(self) if preset else self.over(decided)

    @property
    def run(self) -> Run:
        """What it asks for, on any model. Raises ValueError for a missing method, and as `Prompts` and `Settings`."""
        whole = self.completed()
        if whole.method is None:
            raise ValueError(f"method: missing; choose one of {', '.join(METHODS)}")
        kind, boxes = METHODS[whole.method], (self.forget, self.overwrite, self.retain)
        settings = {"weights": kind.weights, **whole.settings}
        return Run(
            read(kind, whole.options), Prompts.parse(*("\n".join(box or []) for box in boxes)), read(Settings, settings)
        )

    def values(self) -> dict[str, Any]:
        """What it says but for options: names, and settings of the type that they have in `Settings`."""
        said = {name: value for name, value in vars(self).items() if name not in ("options", "settings")}
        typed = {name: SETTINGS[name](value) for name, value in self.settings.items()}
        return {name: value for name, value in {**said, **typed}.items() if value is not None}


def training(method: Method, prompts: Prompts, settings: Settings) -> Recipe:
    """What a method is asked to do, without the model."""
    if len(prompts.overwrite) == 1:
        forget, overwrite = list(prompts.forget), list(filter(None, prompts.overwrite))
    else:
        forget, overwrite = [f"{each} {ARROW} {target}".strip() for each, target in prompts.pairs], []
    return Recipe(
        method=name_of(method),
        forget=forget,
        overwrite=overwrite,
        retain=list(prompts.retain),
        options=asdict(method),
        settings=asdict(settings),
    )


def of_preset(name: str, forget: int) -> Recipe:
    """What a preset gives for so many forget prompts; CUSTOM gives nothing. Raises ValueError for an unknown name."""
    preset = preset_named(name)
    if preset is None:
        return Recipe(settings={"preset": name})
    return Recipe(method=preset.method, options=asdict(preset.objective), settings=preset.values(forget))


def recorded(record: Record) -> str:
    """The recipe of what a patch was made by, without the model.

    Raises ValueError for a record of another version with a method, an option or a setting that this one lacks.
    """
    asked = Recipe(method=record.method, options=record.options, settings=record.settings)
    prompts = Prompts(tuple(record.forget), tuple(record.overwrite), tuple(record.retain))
    recipe = training(read(METHODS[record.method], asked.options), prompts, read(Settings, asked.settings))
    made_with = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    base = "The base is not named: give the command a --model."
    return recipe.text([made_with, base, "Pictures that were given are not in it."])


def recipe_path(patch: Path) -> Path:
    """Where the recipe of a patch file is."""
    return patch.with_suffix(SUFFIX)


def check_recipe_path(path: Path) -> None:
    """Raises ValueError when no recipe can be written there, or another file than a written recipe is there."""
    check_writable(path)
    if path.is_dir() or (path.exists() and not path.read_bytes().startswith(HEADING.encode())):
        raise ValueError(
            f"{path}: is there already, and would be replaced by the recipe of this run; rename one of both"
        )


def save_recipe(path: Path, text: str) -> None:
    """Writes it in one move."""
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def _parse(text: str) -> dict[str, Any]:
    """A TOML table as plain values. Raises ValueError for what is none."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text).unwrap()
    except (TOMLKitError, ValueError) as error:
        raise ValueError(f"this is no TOML ({error}); see https://toml.io") from error
