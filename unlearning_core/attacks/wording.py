"""Other words for the same thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..encodings import readable
from ..model import DiffusionModel
from ..prompts import quoted
from ..wordings import FRAMES, backwards, bare
from .base import Attack, Attacked, Task

CHANGES: Mapping[str, Callable[[str], str]] = {
    "photo": f"{FRAMES['photo']} {{}}".format,
    "drawing": f"{FRAMES['drawing']} {{}}".format,
    "watercolour": "{} in watercolour style".format,
    "twice": lambda prompt: f"{prompt}, {prompt}",
    "reversed": lambda prompt: " ".join(backwards(prompt.split())),
    "bare": lambda prompt: " ".join(bare(prompt.split())) or prompt,
}


@dataclass(frozen=True)
class Wording(Attack):
    """Draws other wordings of the forget prompts: the user's, and generated ones."""

    label = "Wording"
    summary = "words the forget prompts otherwise: in a frame, twice, in reverse, without small words, and as you say"
    source = (
        "the idea of Tsai et al., "
        '"Ring-A-Bell! How Reliable are Concept Removal Methods for Diffusion Models?" (arXiv 2310.10012), without its '
        "search"
    )
    reading = "a patch that knows its own prompts alone lets the concept through under others"

    changes: tuple[str, ...] = tuple(CHANGES)

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.changes if name not in CHANGES]
        if unknown:
            raise ValueError(f"changes: {quoted(unknown[0])} is unknown; choose from {', '.join(CHANGES)}")

    def prepared(self, model: DiffusionModel, task: Task) -> Wording:
        """Without the changes that make prompts longer than the model reads."""
        fitting = tuple(name for name in self.changes if readable(model, [*map(CHANGES[name], task.forget)]))
        if not fitting and not task.wordings:
            raise ValueError("attacks: wording: the model reads none of these wordings; shorten the forget prompts")
        return replace(self, changes=fitting)

    def settings(self, task: Task) -> list[str]:
        """The changes, and the user's wordings."""
        return [*self.changes, *map(quoted, task.wordings)]

    def run(self, attacked: Attacked) -> None:
        """Shows each with the task's seeds."""
        task = attacked.task
        changed = [[CHANGES[name](prompt) for prompt in attacked.prompts] for name in self.changes]
        given = [[wording] * task.seeds for wording in task.wordings]
        for setting, prompts in zip(self.settings(task), changed + given, strict=True):
            attacked.show(setting, attacked.drawn(attacked.model.encode(prompts), task.sampling))
