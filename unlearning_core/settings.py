"""What a run is asked to do: numbers with their ranges, apart from the code that does it."""

from __future__ import annotations

from dataclasses import dataclass

from .model import SELECTIONS
from .options import check_ranges, option
from .sampling import Sampling

USUAL_SIDE = 512  # pixels of a picture, where nothing tells
CUSTOM = "custom"  # no preset


@dataclass(frozen=True)
class Needs:
    """What a method asks of its bank."""

    guides: tuple[int, ...]  # forget latents are drawn under the forget prompt (0), the overwrite prompt (1)
    noised: bool  # whether latents are pictures at random noise, in place of the way to them
    retain: bool  # whether there are retain latents
    reads: tuple[str, ...]  # predictions of the base at forget latents that the loss compares with, of bank.PREDICTIONS


@dataclass(frozen=True)
class BankSettings:
    """How a bank is made: at least so many items of each half, the first one's seed, and how the base samples."""

    items: int
    seed: int
    sampling: Sampling
    pictures: bool = False  # whether there are noised pictures of what is forgotten, for attacks within training


@dataclass(frozen=True)
class Settings:
    """How to train. Raises ValueError for a value outside its range."""

    steps: int = option(80, 1, 100_000, "training steps", step=1)
    learning_rate: float = option(5e-5, 1e-8, 1.0, "Adam's learning rate", step=1e-6)
    rank: int = option(0, 0, 1024, "LoRA rank; 0 trains full weight deltas", step=1)
    alpha: float = option(
        0.0, 0.0, 1024.0, "LoRA alpha: the factors' product counts alpha / rank; 0 is the rank", step=1.0
    )
    protect: float = option(
        0.0,
        0.0,
        1.0,
        "keep layers that read the text from changing along what the retain prompts use: singular values above this "
        "share of the largest; they learn at 20 times the rate; 0 is off",
        step=0.001,
    )
    wordings: int = option(
        0, 0, 64, "other wordings of each forget prompt to look for, which half of the batch sees; 0 is off", step=1
    )
    held_wordings: int = option(
        0,
        0,
        64,
        "other endings of each prompt to hold, from the others, that protect leaves alone too; 0 is off",
        step=1,
    )
    adversaries: int = option(
        0,
        0,
        1024,
        "free texts that learn to draw what is forgotten, while the network learns to answer them as the overwrite "
        "prompt; the learning rate then falls to 0; 0 is off",
        step=1,
    )
    relearning: int = option(
        0,
        0,
        100_000,
        "steps of fine-tuning on pictures of what is forgotten to withstand: a change of all weights takes so many, "
        "again and again, while the network learns to answer under it as the overwrite prompt; the learning rate then "
        "falls to 0; 0 is off",
        step=1,
    )
    retain_ratio: int = option(1, 1, 64, "retain latents a step for each forget latent", step=1)
    seed: int = option(0, 0, 2**64 - 1, "seed of trajectories, batches and LoRA factors", step=1)
    width: int = option(USUAL_SIDE, 16, 16384, "width of the training pictures in pixels", step=8)
    height: int = option(USUAL_SIDE, 16, 16384, "height of the training pictures in pixels", step=8)
    batch_size: int = option(6, 1, 256, "forget latents a step", step=1)
    micro_batch: int = option(
        0,
        0,
        256,
        "forget latents of the batch to compute at a time: the same step in less memory, and more seconds; 0 is all",
        step=1,
    )
    runs: int = option(16, 1, 4096, "least number of base trajectories to forget on, and again to retain on", step=1)
    run_steps: int = option(20, 2, 1000, "sampling steps of a base trajectory; distilled models: their own few", step=1)
    run_cfg: float = option(3.0, 0.0, 100.0, "guidance scale of the base trajectories; distilled models: 1")
    weights: str = "cross_attention_kv"
    preset: str = CUSTOM  # that values come from which are not given, for the record

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.weights not in SELECTIONS:
            raise ValueError(f"weights: {self.weights!r} is unknown; choose one of {', '.join(SELECTIONS)}")

    @property
    def lora_scale(self) -> float:
        """What the product of LoRA factors is multiplied with."""
        return self.alpha / self.rank if self.rank and self.alpha else 1.0

    @property
    def attacked(self) -> bool:
        """Whether attacks learn within training, which do not rest, so that its learning rate must fall."""
        return self.adversaries > 0 or self.relearning > 0

    @property
    def at_once(self) -> int:
        """How many forget latents are computed at a time."""
        return min(self.micro_batch or self.batch_size, self.batch_size)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the training pictures in pixels."""
        return self.width, self.height

    @property
    def sampling(self) -> Sampling:
        """How the base's trajectories are sampled."""
        return Sampling(self.run_steps, self.run_cfg, self.width, self.height)

    @property
    def bank(self) -> BankSettings:
        """How the bank is made."""
        return BankSettings(self.runs, self.seed, self.sampling, self.attacked)
