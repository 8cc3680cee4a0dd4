"""Judges for any model, for the nodes that count what was forgotten."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from .clip import check_clip, clip_input, load_open_clip
from .types import UnlearningJudge

LABELS = "a photo of a {}: cat, dog, horse, car, house\na painting by {}: Vincent van Gogh, Claude Monet"


def labels_input() -> io.Input:
    return io.String.Input(
        "labels",
        multiline=True,
        default=LABELS,
        tooltip="What the judge chooses from. One domain a line: a caption with {} in the label's place, a colon, and "
        "two labels or more between commas. The forget prompts must share one label; prompts name labels as whole "
        "words.",
    )


def judge_output() -> io.Output:
    return UnlearningJudge.Output(
        display_name="JUDGE", tooltip="For Retention Metric, Forgetting Metric and Compare Methods."
    )


def check_labels(labels: str | None) -> None:
    """Raises ValueError for labels of another form; None is a link."""
    from ..unlearning_core.metrics.judges import parse_domains

    if labels is not None:
        parse_domains(labels)


class CLIPJudge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CLIPJudge",
            display_name="Zero-Shot CLIP Judge",
            category="unlearning/judges",
            description="Names what a picture shows: the label whose caption is nearest to it in an open_clip model.",
            search_aliases=["zero-shot classifier", "CLIP", "open_clip", "judge", "unlearning accuracy"],
            inputs=[clip_input(), labels_input()],
            outputs=[judge_output()],
        )

    @classmethod
    def validate_inputs(cls, clip_model: str | None = None, labels: str | None = None) -> bool | str:
        try:
            check_labels(labels)
            check_clip(clip_model)
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, clip_model: str, labels: str) -> io.NodeOutput:
        from ..unlearning_core.metrics.judges import ClipJudge, parse_domains

        return io.NodeOutput(ClipJudge(load_open_clip(clip_model), parse_domains(labels)))


class DiffusionClassifierJudge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiffusionClassifierJudge",
            display_name="Diffusion Classifier Judge",
            category="unlearning/judges",
            description=(
                "Names what a picture shows with the base model itself: the label under whose caption the model takes "
                "noise out of the picture best. Needs no other weights and works for any model, but is slow."
            ),
            search_aliases=["diffusion classifier", "zero-shot classifier", "judge", "unlearning accuracy"],
            inputs=[
                io.Model.Input("base_model", tooltip="The model before unlearning."),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                labels_input(),
            ],
            outputs=[judge_output()],
        )

    @classmethod
    def validate_inputs(cls, labels: str | None = None) -> bool | str:
        try:
            check_labels(labels)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, base_model: ModelPatcher, clip: Any, vae: Any, labels: str) -> io.NodeOutput:
        from ..unlearning_core.metrics.judges import DiffusionClassifier, parse_domains
        from .model import ComfyModel

        model = ComfyModel(base_model, clip)

        def to_latents(pictures: Tensor) -> Tensor:
            latents = vae.encode(pictures)
            # The unlearned model shares these weights, and its patch may be on them.
            comfy.model_management.load_models_gpu([base_model], force_full_load=True)
            return model.latents(latents)

        return io.NodeOutput(DiffusionClassifier(model, to_latents, parse_domains(labels)))
