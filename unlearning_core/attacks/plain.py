"""No attack: what the others are compared with."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Attack, Attacked, Task

FORGET = "the forget prompts"


@dataclass(frozen=True)
class Plain(Attack):
    """Draws the forget prompts."""

    label = "No attack"
    summary = "draws the forget prompts as they are"
    source = "none; 1 - UA of UnlearnCanvas (Zhang et al. 2024, arXiv 2402.11846)"
    reading = "what is left before any attack; the base's share is the judge's own accuracy"

    def settings(self, task: Task) -> list[str]:
        """One."""
        return [FORGET]

    def run(self, attacked: Attacked) -> None:
        """Shows it."""
        attacked.show(FORGET, attacked.drawn(attacked.model.encode(attacked.prompts), attacked.task.sampling))
