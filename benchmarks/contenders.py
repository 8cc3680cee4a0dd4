"""The rows of the comparison: each method with the settings that the search may choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from unlearning_core.methods import METHODS, GradientMethod, Method
from unlearning_core.presets import PRESETS, PROTECTED, Preset, preset_named
from unlearning_core.sampling import Sampling
from unlearning_core.settings import CUSTOM, Settings

SAMPLING = Sampling(steps=25, cfg=3.0, width=128, height=128)
HELPS = ("help_weight", (10.0, 3.0, 1.0))  # OVW's own strength, and Saddle's; their learning rate is the middle one
MARGINS = ("margin", (0.0, 0.5, 1.0))
SURE = ("margin", (0.5, 1.0))  # where other pictures hardly move
SETTLED = ("steps", (100, 150, 200, 300))  # a constraint takes time to hold, and longer with some seeds
LEARNING_RATE = 1e-3
AS_WRITTEN, HELD = " without held_wordings", " with held_wordings"


@dataclass(frozen=True)
class Contender:
    """A row of the table: a method, and settings of it in three groups, from weak to strong in each."""

    name: str
    method: str
    options: dict[str, float] = field(default_factory=dict)  # of the method
    settings: Mapping[str, Any] = field(default_factory=dict)
    outer: tuple[str, tuple[float, ...]] = ("learning_rate", (5e-4, 1e-3, 2e-3))
    inner: tuple[str, tuple[float, ...]] = ("steps", (25, 50, 100, 200))

    @property
    def trains(self) -> bool:
        """Whether one training passes through the settings of a group."""
        return issubclass(METHODS[self.method], GradientMethod)

    def groups(self) -> list[list[dict[str, float]]]:
        """The settings of each group, from weak to strong."""
        (outer, values), (inner, others) = self.outer, self.inner
        return [[{outer: value, inner: other} for other in others] for value in values]


def preset_row(preset: Preset) -> Contender:
    """A preset as it is, in one group of one setting."""
    decided = preset.values(forget=1)
    return Contender(
        preset.name.capitalize(),
        preset.method,
        dict(preset.options),
        decided,
        outer=("learning_rate", (LEARNING_RATE,)),
        inner=("steps", (decided["steps"],)),
    )


def as_written(row: Contender) -> Contender:
    """A preset's row that protects the retain prompts as they are written, and no other endings of them."""
    return replace(row, name=f"{row.name}{AS_WRITTEN}", settings={**row.settings, "held_wordings": 0})


CONTENDERS = [
    Contender("OVW", "ovw", outer=HELPS),
    Contender("OVW, protected", "ovw", settings=PROTECTED, outer=HELPS),
    Contender("OVW without L_help", "ovw", {"help_weight": 0.0}),
    Contender("Saddle", "saddle", outer=MARGINS, inner=SETTLED),
    Contender("Saddle, protected", "saddle", settings=PROTECTED, outer=MARGINS, inner=SETTLED),
    Contender(f"Saddle{HELD}", "saddle", settings={**PROTECTED, "held_wordings": 8}, outer=SURE, inner=SETTLED),
    Contender("Saddle without L_help", "saddle", {"help_weight": 0.0}, outer=MARGINS, inner=SETTLED),
    Contender("OVW, protected without L_help", "ovw", {"help_weight": 0.0}, PROTECTED),
    Contender("Saddle, protected without L_help", "saddle", {"help_weight": 0.0}, PROTECTED, MARGINS, SETTLED),
    Contender("ESD-x", "esd"),
    Contender("SalUn", "salun"),
    Contender("SA", "sa"),
    Contender("CA", "ca"),
    Contender("UCE", "uce", outer=("retain_weight", (100.0, 10.0, 1.0)), inner=("ridge", (30.0, 10.0, 1.0, 0.1))),
    Contender(
        "Null space", "nullspace", outer=("tolerance", (1e-3, 3e-3, 1e-2)), inner=("ridge", (3.0, 0.3, 0.03, 1e-3))
    ),
    *map(preset_row, PRESETS.values()),
    as_written(preset_row(PRESETS["balanced"])),
]


def method_of(contender: Contender, setting: Mapping[str, float]) -> Method:
    """The method with the options of its row and of the setting."""
    kind = METHODS[contender.method]
    options = {name: setting[name] for name in (spec.name for spec in fields(kind)) if name in setting}
    return kind(**contender.options, **options)


def settings_of(contender: Contender, setting: Mapping[str, float], seed: int, forget: int = 1) -> Settings:
    """The row's settings for so many forget prompts, or else the method's own weights, at the shipped model's size."""
    own = {
        "steps": int(setting.get("steps", 1)),
        "learning_rate": setting.get("learning_rate", LEARNING_RATE),
        "width": SAMPLING.width,
        "height": SAMPLING.height,
        "weights": METHODS[contender.method].weights,
    }
    preset = preset_named(contender.settings.get("preset", CUSTOM))
    decided = {"steps": preset.values(forget)["steps"]} if preset else {}
    return Settings(**{**own, **contender.settings, **decided, "seed": seed})
