"""Every attack on every model, with the controls that say what its figures mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..bank import Source, items_at_once, retain_items, sample_trajectories
from ..latents import BankItem
from ..metrics.evaluation import check_names
from ..metrics.forgetting import Judge, Target, target_of
from ..metrics.plan import BASE
from ..model import DiffusionModel
from ..progress import OnProgress, Reporter
from .base import Attack, Attacked, Host, Look, Scene, Task, judged_by

UNSEEN = "base model, reversed"
BACK = 0.5  # share of pictures from which on a concept counts as back

Opened = Callable[[], AbstractContextManager[Host]]  # opens a model; one is open at a time


@dataclass(frozen=True)
class Finding:
    """What an attack did to a model."""

    attack: str  # its name in the registry
    looks: tuple[Look, ...]
    calls: int  # latents that the network has seen: of drawing, and of training forward and backward
    back: Tensor | None = field(compare=False, repr=False)  # pictures [N, H, W, 3] in 0..1 of `strongest` that show it

    @property
    def strongest(self) -> Look:
        """The setting with the largest share; the first of equal ones."""
        return max(self.looks, key=lambda look: look.share)

    @property
    def steps_back(self) -> int | None:
        """The fewest training steps, or 0 without, after which the share was BACK or more; None when it never was."""
        return min((look.steps for look in self.looks if look.share >= BACK), default=None)

    def summary(self) -> dict[str, Any]:
        """As plain JSON."""
        settings = [
            {
                "setting": look.setting,
                "share": look.share,
                "interval": [*look.interval],
                "hits": look.hits,
                "pictures": look.count,
                "training steps": look.steps,
                **({"words": look.words} if look.words else {}),
            }
            for look in self.looks
        ]
        strongest = {"share": self.strongest.share, "strongest": self.strongest.label}
        return {**strongest, "steps until back": self.steps_back, "network calls": self.calls, "settings": settings}


@dataclass(frozen=True)
class Examination:
    """What attacks did to the base, to the base with the concept reversed, and to each unlearned model."""

    findings: Mapping[str, tuple[Finding, ...]]  # by model, the two controls first
    target: Target
    settings: dict[str, Any]

    @property
    def attacks(self) -> list[str]:
        """Their names."""
        return [finding.attack for finding in self.findings[BASE]]

    @property
    def unlearned(self) -> dict[str, tuple[Finding, ...]]:
        """Without the two controls."""
        return {name: findings for name, findings in self.findings.items() if name not in (BASE, UNSEEN)}

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        models = [
            {"name": name, "attacks": {finding.attack: finding.summary() for finding in findings}}
            for name, findings in self.findings.items()
        ]
        return {"concept": self.target.label, "models": models, "settings": self.settings}


@dataclass(frozen=True)
class Examiner:
    """Who attacks, and who looks."""

    attacks: Mapping[str, Attack]
    judge: Judge
    task: Task
    on_progress: OnProgress = lambda progress: None

    def examine(self, base: Opened, unlearned: Mapping[str, Opened], settings: dict[str, Any]) -> Examination:
        """Attacks the models one after the other; the base draws what the others are attacked with.

        `settings` describes the models; task and judge are added. Progress is told after every setting. Raises
        ValueError before work starts as `check_model_names`, `target_of`, `prepared`, and a model's `encode` for what
        it cannot read.
        """
        check_model_names(list(unlearned))
        target = target_of(self.judge.domains, self.task.forget)
        findings: dict[str, tuple[Finding, ...]] = {}
        with base() as host:
            host.model.encode([*self.task.forget, *self.task.wordings, *self.task.others])
            attacks = {name: attack.prepared(host.model, self.task) for name, attack in self.attacks.items()}
            looks = sum(len(attack.settings(self.task)) for attack in attacks.values())
            settings_tried = (2 + len(unlearned)) * looks
            report = Reporter(self.on_progress, settings_tried)
            report.begin("attacking", settings_tried)

            def found(host: Host, scene: Scene) -> tuple[Finding, ...]:
                return findings_of(host, scene, attacks, judged_by(self.judge, target), report)

            scene = make_scene(host.model, self.task)
            findings[BASE] = found(host, scene)
            findings[UNSEEN] = found(host, scene.reversed())
        for name, opened in unlearned.items():
            with opened() as host:
                findings[name] = found(host, scene)
        return Examination(findings, target, {**settings, **self.task.settings(), "judge": self.judge.name})


def findings_of(
    host: Host,
    scene: Scene,
    attacks: Mapping[str, Attack],
    shows: Callable[[Tensor], Tensor],
    on_look: Callable[[], None] = lambda: None,
) -> tuple[Finding, ...]:
    """What each attack, already `prepared`, does to one model; `shows` and `on_look` are those of `Attacked`."""
    found = []
    for name, attack in attacks.items():
        attacked = Attacked(host, scene, shows, on_look)
        attack.run(attacked)
        found.append(Finding(name, tuple(attacked.looks), attacked.calls, attacked.back))
    return tuple(found)


def strongest(findings: Sequence[Finding]) -> Finding:
    """The one that brought back the most; the first of equal ones."""
    return max(findings, key=lambda finding: finding.strongest.share)


def check_model_names(names: Sequence[str]) -> None:
    """Raises ValueError for two models of one name, or one that stands for a control."""
    check_names(names)
    if UNSEEN in names:
        raise ValueError(f"names: {UNSEEN!r} stands for a control; give the unlearned model another name")


def make_scene(model: DiffusionModel, task: Task) -> Scene:
    """The base's pictures of both kinds, with seeds that no attack draws with."""
    seed = task.seed + task.pictures
    return Scene(task, _pictures(model, task, task.forget, seed), _pictures(model, task, task.others, seed))


def _pictures(model: DiffusionModel, task: Task, prompts: Sequence[str], seed: int) -> Source:
    items: list[BankItem] = retain_items(prompts, task.examples, seed)
    at_once = items_at_once(task.sampling.width, task.sampling.height)
    drawn = sample_trajectories(model, items, task.sampling, at_once=at_once, reads=())
    return Source(items, drawn.x0, noised=True, reads=())
