"""Diffusion Classifier Judge."""

from __future__ import annotations

from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from .host.checks import Inputs, check_given, checked
from .inputs import judge_output, labels_input


class DiffusionClassifierJudge(io.ComfyNode):
    """The base MODEL with its CLIP and VAE, and labels in, a JUDGE out."""

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
    @checked("labels")
    def validate_inputs(cls, inputs: Inputs) -> None:
        from ..unlearning_core.metrics.judges import parse_domains

        if "labels" in inputs:
            parse_domains(inputs["labels"])

    @classmethod
    def execute(cls, base_model: ModelPatcher, clip: Any, vae: Any, labels: str) -> io.NodeOutput:
        from ..unlearning_core.metrics.judges import DiffusionClassifier, parse_domains
        from .host.model import ComfyModel

        check_given(cls.define_schema().inputs, {"base_model": base_model, "clip": clip, "vae": vae})
        model = ComfyModel(base_model, clip)

        def to_latents(pictures: Tensor) -> Tensor:
            latents = vae.encode(pictures)
            # The unlearned model shares these weights, and its patch may be on them.
            comfy.model_management.load_models_gpu([base_model], force_full_load=True)
            return model.latents(latents)

        return io.NodeOutput(DiffusionClassifier(model, to_latents, parse_domains(labels)))
