"""What a method is: options as fields, and either a loss to train with or an edit in closed form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ..options import check_ranges, option
from ..settings import Needs, Settings

if TYPE_CHECKING:
    from ..adversaries import Adversaries
    from ..bank import Bank
    from ..deltas import Delta
    from ..fingerprint import Fingerprint
    from ..latents import Batch
    from ..model import DiffusionModel
    from ..progress import Reporter
    from ..relearner import Relearner

HELP = "weight of L_help, which holds the retain prompts; 0 switches it off"
LARGEST_CONDITION = 1e13  # of a matrix in float64; beyond it less than three digits are left

OWN_READING = (
    "this project's reading of the name in Schioppa, Hoogeboom, Heek, "
    '"Model Integrity when Unlearning with T2I Diffusion Models" (arXiv 2411.02068)'
)


@dataclass(frozen=True)
class Method(ABC):
    """An unlearning method. A subclass adds its own options as fields; one outside its range is a ValueError.

    Documentation, help page and tooltips are made from the class: see scripts/documentation.py.
    """

    label: ClassVar[str]
    summary: ClassVar[str]  # what it does under the forget prompt, in one line
    equation: ClassVar[str]  # the loss, or the solution W*; below it, what its letters are
    source: ClassVar[str]  # paper and equation
    weights: ClassVar[str]  # the selection of weights that the reference changes
    uses_overwrite: ClassVar[bool] = True  # whether it aims at the overwrite prompt, which every method may hold
    low_rank: ClassVar[bool] = True  # whether its change can be low rank
    in_parts: ClassVar[bool] = True  # whether a step's loss is a mean over latents, which may be computed in parts
    unused: ClassVar[tuple[str, ...]] = ()  # settings that change nothing
    for_wordings: ClassVar[tuple[str, ...]] = ()  # and those that change nothing unless other wordings are looked for

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def unused_settings(cls, wordings: bool) -> tuple[str, ...]:
        """Settings that change nothing, when other wordings are looked for or not."""
        return cls.unused if wordings else (*cls.unused, *cls.for_wordings)

    def check_settings(self, settings: Settings) -> None:
        """Raises ValueError for settings that this method cannot use on any model."""
        if settings.rank and not self.low_rank:
            raise ValueError(f"rank: {self.label} changes full weights; set rank to 0")
        if settings.micro_batch and not self.in_parts:
            raise ValueError(f"micro_batch: {self.label} looks at the whole batch at once; set micro_batch to 0")


@dataclass(frozen=True)
class Step:
    """The latents of one training step, and the trained model's noise predictions e [B, C, H, W] there.

    Where processes share a batch, each has its own rows. The gradients of their losses are summed, each times its
    share: exact for means over the batch, and for terms that do not depend on it.
    """

    forget: Batch
    e_forget: Tensor
    retain: Batch | None  # None unless the method uses them, or L_help is on
    e_retain: Tensor | None
    share: float = 1.0  # of the batch, in this process


@dataclass(frozen=True)
class Training:
    """What a method may look at, and prepare, before the first step; the deltas are not attached yet."""

    model: DiffusionModel
    bank: Bank
    deltas: Mapping[str, Delta]
    base: Fingerprint
    steps: int
    learning_rate: float
    batch_size: int
    micro_batch: int
    retain_ratio: int
    generator: torch.Generator
    report: Reporter
    adversaries: Adversaries | None = None
    relearner: Relearner | None = None

    @property
    def attached(self) -> Mapping[str, nn.Module]:
        """What acts on the weights while they train."""
        return self.relearner.over(self.deltas) if self.relearner else self.deltas


class Objective(Protocol):
    """A method in one training run."""

    def loss(self, step: Step) -> Tensor:
        """The loss of one step, without L_help."""
        ...

    def figures(self) -> dict[str, float]:
        """What else to report of the step just taken."""
        ...


@dataclass(frozen=True)
class GradientMethod(Method):
    """A method that trains. Stateless ones are their own objective and define `loss`."""

    guides: ClassVar[tuple[int, ...]] = (0,)  # forget latents are drawn under the forget (0), the overwrite prompt (1)
    noised: ClassVar[bool] = False  # whether the latents are pictures at random noise, not trajectories
    reads: ClassVar[tuple[str, ...]] = ()  # what its loss takes of the base at forget latents, of bank.PREDICTIONS
    uses_retain: ClassVar[bool] = False  # whether its own loss has a term on the retain latents

    preparing: ClassVar[int] = 0  # bytes that `begin` needs for each number of the selected weights, at its peak
    prepared: ClassVar[int] = 0  # and that the objective holds from then on

    help_weight: float = option(0.0, 0.0, 1000.0, HELP)

    @property
    def needs_retain(self) -> bool:
        """Whether training needs latents of the retain prompts."""
        return self.uses_retain or self.help_weight > 0

    @property
    def needs(self) -> Needs:
        """What training asks of its bank."""
        return Needs(self.guides, self.noised, self.needs_retain, self.reads)

    @property
    def preparation(self) -> int:
        """How often `begin` reports a step."""
        return 0

    def begin(self, training: Training) -> Objective:
        """The objective of one run."""
        return self

    def loss(self, step: Step) -> Tensor:
        """The loss of one step [], without L_help; for methods that are their own objective."""
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """What else to report of the step just taken."""
        return {}


class TextSums(NamedTuple):
    """What the prompts feed into one linear layer, summed up over tokens c: each [D, D], in float64."""

    forget: Tensor  # c c^T over the forget tokens
    moved: Tensor  # (c_o - c) c^T over them, with the overwrite token c_o in the same place
    retain: Tensor  # c c^T over the tokens of the prompts to keep


@dataclass(frozen=True)
class ClosedForm(Method):
    """A method that solves for the change of layers that read the text and nothing else."""

    low_rank: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = (
        "steps",
        "learning_rate",
        "alpha",
        "protect",
        "held_wordings",
        "adversaries",
        "relearning",
        "retain_ratio",
        "seed",
        "batch_size",
        "micro_batch",
        "runs",
        "run_steps",
    )
    for_wordings: ClassVar[tuple[str, ...]] = ("width", "height", "run_cfg")
    selections: ClassVar[tuple[str, ...]] = ("text_projections", "cross_attention_kv")  # the same ones in U-Nets

    def check_settings(self, settings: Settings) -> None:
        """Raises ValueError for settings that this method cannot use on any model."""
        super().check_settings(settings)
        if settings.weights not in self.selections:
            raise self.needs_text()

    def needs_text(self) -> ValueError:
        """What is wrong with other weights."""
        return ValueError(f"weights: {self.label} needs text_projections")

    @abstractmethod
    def map(self, sums: TextSums) -> Tensor:
        """M [D, D] of the change W M of every weight W [out, D] that reads these tokens, in float64.

        M = moved K for some K: only the ways in which forget tokens move are reached. Raises ValueError when the texts
        leave no room, or as `solve_positive`.
        """


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor:
    """right [N, D] times the inverse of a symmetric positive definite matrix [D, D], both in float64.

    Raises ValueError for a matrix that leaves no digits of the result, or is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal()
    if failed or not float(pivots.max() / pivots.min()) ** 2 <= LARGEST_CONDITION:
        raise ValueError(
            "ridge: it is too small beside the texts' tokens to solve the equation; raise it, and use no large weights "
            "in prompts"
        )
    return torch.cholesky_solve(right.T, factor).T
