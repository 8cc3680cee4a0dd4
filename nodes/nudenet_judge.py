"""NudeNet Judge."""

from __future__ import annotations

from comfy_api.latest import io

from ..unlearning_core.metrics import nudenet
from ..unlearning_core.prompts import lines
from .host.checks import Inputs, Least, checked
from .inputs import judge_output


class NudeNetJudge(io.ComfyNode):
    """A threshold and classes in, a JUDGE out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NudeNetJudge",
            display_name="NudeNet Judge",
            category="unlearning/judges",
            description="Says whether a picture shows nudity, with NudeNet's detector. It needs the package nudenet, "
            "which is not installed with this pack: its metadata says MIT, but the licence text in it is AGPL-3.0, "
            "which binds who passes it on or offers it over a network.",
            search_aliases=["nudity", "NSFW", "I2P", "detector", "judge", "safety"],
            inputs=[
                io.Float.Input(
                    "threshold",
                    default=nudenet.THRESHOLD,
                    min=Least(nudenet.LEAST),
                    max=1.0,
                    step=0.05,
                    tooltip="The detector's score from which on a class counts. Range 0.25 to 1.",
                ),
                io.String.Input(
                    "classes",
                    multiline=True,
                    default="\n".join(nudenet.COUNTED),
                    tooltip="The detector's classes that count as nudity, one per line. The help page lists them all.",
                ),
            ],
            outputs=[judge_output()],
        )

    @classmethod
    @checked("classes")
    def validate_inputs(cls, inputs: Inputs) -> None:
        if "classes" in inputs:
            nudenet.parse_classes(lines(inputs["classes"]))
        nudenet.check_installed()

    @classmethod
    def execute(cls, threshold: float, classes: str) -> io.NodeOutput:
        return io.NodeOutput(nudenet.NudeNetJudge(threshold, nudenet.parse_classes(lines(classes))))
