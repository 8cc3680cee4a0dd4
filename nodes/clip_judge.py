"""Zero-Shot CLIP Judge."""

from __future__ import annotations

from comfy_api.latest import io

from .host.checks import Inputs, checked
from .host.networks import check_clip, load_open_clip
from .inputs import clip_input, judge_output, labels_input


class CLIPJudge(io.ComfyNode):
    """The name of an open_clip model and labels in, a JUDGE out."""

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
    @checked("clip_model", "labels")
    def validate_inputs(cls, inputs: Inputs) -> None:
        from ..unlearning_core.metrics.judges import parse_domains

        if "labels" in inputs:
            parse_domains(inputs["labels"])
        if "clip_model" in inputs:
            check_clip(inputs["clip_model"])

    @classmethod
    def execute(cls, clip_model: str, labels: str) -> io.NodeOutput:
        from ..unlearning_core.metrics.judges import ClipJudge, parse_domains

        return io.NodeOutput(ClipJudge(load_open_clip(clip_model), parse_domains(labels)))
