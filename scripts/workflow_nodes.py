"""The nodes that workflows are made of, with what they are set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from workflow_graph import Box, Node, Output, Socket, Value, Widget

UNLEARN = "Unlearn Concept"


class Loaded(NamedTuple):
    """Which outputs of a workflow's loaders are what."""

    model: Output
    clip: Output
    vae: Output
    judge: Output | None = None


@dataclass(frozen=True)
class Prompts:
    """What a workflow forgets, and what it measures beside that."""

    forget: tuple[str, ...]
    overwrite: tuple[str, ...]
    retain: tuple[str, ...]
    measured_retain: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """Unlearn Concept's values. `size`: width and height in pixels; rank 0: no LoRA.

    The base samples as its card says it is sampled: a distilled one in few steps without guidance.
    """

    size: int
    learning_rate: float = 1e-4
    rank: int = 16
    batch_size: int = 1
    run_cfg: float = 3
    run_steps: int = 20
    weights: str = "method default"
    steps: int = 200
    runs: int = 16
    method: str = "ovw"
    options: Mapping[str, float] = field(default_factory=lambda: {"help_weight": 3})
    thoroughness: str = "custom"


@dataclass(frozen=True)
class Measuring:
    """A measuring node's values. `size`: width and height in pixels."""

    size: int
    cfg: float = 7
    scheduler: str = "normal"
    steps: int = 25
    seeds: int = 1
    forget_seeds: int = 2


Inputs = tuple[Socket | Widget, ...]


def text(name: str, *lines: str) -> Widget:
    """A text box."""
    return Widget(name, "STRING", "\n".join(lines))


def choice(name: str, value: str) -> Widget:
    """A list of values, and the chosen one."""
    return Widget(name, "COMBO", value)


def whole(name: str, value: int) -> Widget:
    """A whole number."""
    return Widget(name, "INT", value)


def number(name: str, value: float) -> Widget:
    """A number."""
    return Widget(name, "FLOAT", value)


def unlearn(place: tuple[int, Box], loaded: Loaded, prompts: Prompts, training: Training, title: str) -> Node:
    """Unlearn Concept, with a node id and its place."""
    options = [number(f"method.{name}", value) for name, value in training.options.items()]
    inputs: Inputs = (
        Socket("model", "MODEL", loaded.model),
        Socket("clip", "CLIP", loaded.clip),
        text("forget_prompts", *prompts.forget),
        text("overwrite_prompt", *prompts.overwrite),
        text("retain_prompts", *prompts.retain),
        Widget("method", "COMFY_DYNAMICCOMBO_V3", training.method),
        *options,
        whole("steps", training.steps),
        number("learning_rate", training.learning_rate),
        choice("weights", training.weights),
        whole("rank", training.rank),
        number("alpha", 0),
        whole("seed", 0),
        whole("width", training.size),
        whole("height", training.size),
        whole("batch_size", training.batch_size),
        whole("runs", training.runs),
        whole("run_steps", training.run_steps),
        number("run_cfg", training.run_cfg),
        number("protect", 0),
        whole("wordings", 0),
        choice("thoroughness", training.thoroughness),
        whole("adversaries", 0),
        whole("retain_ratio", 1),
        whole("held_wordings", 0),
        whole("micro_batch", 0),
        whole("relearning", 0),
    )
    outputs = {"MODEL": "MODEL", "PATCH": "UNLEARNING_PATCH"}
    return Node(place[0], "UnlearnConcept", title, place[1], inputs, outputs, renamed=title != UNLEARN)


def compared(loaded: Loaded, unlearned: Output) -> Inputs:
    """The models of a measuring node."""
    return (
        Socket("base_model", "MODEL", loaded.model),
        Socket("unlearned_model", "MODEL", unlearned),
        Socket("clip", "CLIP", loaded.clip),
        Socket("vae", "VAE", loaded.vae),
    )


def several(*unlearned: Output) -> Inputs:
    """The models of a node that takes any number, with the free socket that the last one makes room for."""
    sockets = [*unlearned, None]
    return tuple(Socket(f"models.model{row}", "MODEL", source, optional=row > 0) for row, source in enumerate(sockets))


def judged(judge: Output | None, optional: bool = True) -> Socket:
    """The judge of a measuring node."""
    return Socket("judge", "UNLEARNING_JUDGE", judge, optional)


def measured(prompts: Prompts) -> Inputs:
    """The prompts of a measuring node: what is forgotten has one place, Unlearn Concept."""
    return (text("forget_prompts"), text("retain_prompts", *prompts.measured_retain))


def forgotten_by(unlearn_id: int) -> Socket:
    """The patch of node `unlearn_id`, whose forget prompts a measuring node takes."""
    return Socket("patch", "UNLEARNING_PATCH", Output(unlearn_id, 1), optional=True)


def drawn(measuring: Measuring) -> Inputs:
    """How a measuring node draws."""
    return (
        whole("seed", 1000),
        whole("seeds", measuring.seeds),
        whole("forget_seeds", measuring.forget_seeds),
        choice("sampler_name", "euler"),
        choice("scheduler", measuring.scheduler),
        whole("steps", measuring.steps),
        number("cfg", measuring.cfg),
        whole("width", measuring.size),
        whole("height", measuring.size),
    )


def kept(prefix: str) -> Inputs:
    """Where a measuring node saves its figures, and whether it draws everything again."""
    return (text("filename_prefix", f"unlearning/{prefix}"), Widget("fresh_pictures", "BOOLEAN", False))


def retention(place: tuple[int, Box], loaded: Loaded, unlearn_id: int, prompts: Prompts, measuring: Measuring) -> Node:
    """Retention Metric of what node `unlearn_id` puts out, with a node id and its place."""
    inputs: Inputs = (
        *compared(loaded, Output(unlearn_id, 0)),
        *measured(prompts),
        *drawn(measuring),
        judged(loaded.judge),
        forgotten_by(unlearn_id),
        choice("backbone", "alex"),
        *kept("retention"),
    )
    outputs = {
        "INTEGRITY": "FLOAT",
        "FORGET_DISTANCE": "FLOAT",
        "TABLE": "STRING",
        "JSON": "STRING",
        "SHEET": "IMAGE",
        "PATCH": "UNLEARNING_PATCH",
    }
    return Node(place[0], "RetentionMetric", "Retention Metric", place[1], inputs, outputs)


def save(place: tuple[int, Box], patch: Output, prefix: str) -> Node:
    """Save Unlearning Patch, with a node id and its place."""
    inputs = (Socket("patch", "UNLEARNING_PATCH", patch), text("filename_prefix", prefix))
    return Node(place[0], "SaveUnlearningPatch", "Save Unlearning Patch", place[1], inputs, {})


def preview(place: tuple[int, Box], images: Output, title: str) -> Node:
    """Preview Image, with a node id and its place."""
    return Node(place[0], "PreviewImage", title, place[1], (Socket("images", "IMAGE", images),), {}, renamed=True)


def node(place: tuple[int, Box], names: tuple[str, str], inputs: Inputs, outputs: Mapping[str, str]) -> Node:
    """Any node, with a node id and its place, and names: type and title."""
    return Node(place[0], names[0], names[1], place[1], inputs, outputs)


def values(entries: Inputs) -> dict[str, Value]:
    """What widgets are set to."""
    return {entry.name: entry.value for entry in entries if isinstance(entry, Widget)}
