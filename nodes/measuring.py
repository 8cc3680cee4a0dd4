"""What the measuring nodes share: they draw with several MODELs under one plan, and show and save figures."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..unlearning_core.measured import MeasuredPrompts, measured_prompts
from ..unlearning_core.prompts import check_measured, lines
from .host.checks import Inputs, check_given
from .host.folders import check_prefix, next_target, save_pictures, save_report
from .host.live import show
from .host.progress import drawing_progress, interruptible

if TYPE_CHECKING:
    from ..unlearning_core.metrics.forgetting import Judge
    from ..unlearning_core.metrics.plan import Draw, Plan
    from ..unlearning_core.metrics.studio import Studio
    from ..unlearning_core.reports.files import Report

PICTURED = [io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo]  # what a node with pictures asks for


class Result(NamedTuple):
    """What a measuring node found."""

    report: Report
    page: str  # Markdown
    first: tuple[Any, ...]  # outputs before TABLE and JSON
    last: tuple[Any, ...] = ()  # and behind them
    pictures: Mapping[str, Tensor] = {}  # [1, H, W, 3] in 0..1, shown in the node, by what their files end with
    told: Sequence[str] = ()  # of the prompts, a sentence each
    lacks: Sequence[str] = ()  # what is missing and why, a sentence each


class FigureNode(io.ComfyNode):
    """A node whose figures are shown in it, put out as TABLE and JSON, and saved as files."""

    key: ClassVar[str]  # of the figures in what ComfyUI sends to the front end

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        prefix = inputs.get("filename_prefix", f"unlearning/{cls.key}")
        check_prefix(prefix)
        check_given(cls.define_schema().inputs, inputs)
        began = time.monotonic()
        with interruptible(cls.hidden.unique_id):
            result = cls.result(inputs)
        target = next_target(prefix)
        files = save_report(target, result.report)
        show(f"measured in {time.monotonic() - began:.0f} s", cls.hidden.unique_id)
        first, *rest = result.page.split("\n\n", 1)
        page = "\n\n".join([first, *result.lacks, *rest, *result.told])
        shown: dict[str, Any] = {"text": (page,), cls.key: [result.report.summary], "report": files}
        if result.pictures:
            shown["images"] = save_pictures(target, result.pictures, cls.workflow())
        return io.NodeOutput(*result.first, page, json.dumps(result.report.summary, indent=2), *result.last, ui=shown)

    @classmethod
    def workflow(cls) -> dict[str, Any]:
        """What ComfyUI writes into pictures, so that one opens the workflow that made it; nothing where it may not."""
        if args.disable_metadata:
            return {}
        return {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}

    @classmethod
    @abstractmethod
    def result(cls, inputs: Inputs) -> Result:
        """What the node finds. Raises ValueError for input that it cannot work with."""


class MeasuringNode(FigureNode):
    """A node that measures what MODELs draw under one plan."""

    @classmethod
    def result(cls, inputs: Inputs) -> Result:
        """As `measure`."""
        from .host.drawing import ComfyDrawing, KSamplerSettings, picture_cache
        from .host.live import running
        from .host.preview import studio_for

        prompts = prompts_of(inputs)
        plan = plan_of(prompts, inputs)
        progress = drawing_progress(cls.count_pictures(plan, inputs) * inputs["steps"], cls.hidden.unique_id)
        sampling = KSamplerSettings(**{spec.name: inputs[spec.name] for spec in fields(KSamplerSettings)})
        drawing = ComfyDrawing(inputs["clip"], inputs["vae"], sampling, progress)
        drawing.check_size(inputs["base_model"], cls.smallest_side(inputs))
        cache, run = picture_cache(inputs.get("fresh_pictures", False)), running(cls.hidden.unique_id)
        studio = studio_for(drawing, cache, inputs["base_model"], run)
        result = cls.measure(studio, plan, inputs)
        return result._replace(told=prompts.told)

    @classmethod
    @abstractmethod
    def measure(cls, studio: Studio[ModelPatcher], plan: Plan, inputs: Inputs) -> Result:
        """The figures. Raises ValueError for input that cannot be measured."""

    @classmethod
    def count_pictures(cls, plan: Plan, inputs: Inputs) -> int:
        """How many pictures `measure` asks for, for the progress bar."""
        return 2 * len(plan.prompt_seeds)

    @classmethod
    def smallest_side(cls, inputs: Inputs) -> int:
        """The least side in pixels that the figures are defined for."""
        return 1


class Compared(NamedTuple):
    """What draws with a node's two models, and how, for a report."""

    base: Draw
    unlearned: Draw
    settings: dict[str, Any]


def compared(studio: Studio[ModelPatcher], inputs: Inputs) -> Compared:
    """Of the inputs `base_model` and `unlearned_model`."""
    base_model, unlearned_model = inputs["base_model"], inputs["unlearned_model"]
    settings = {**studio.settings(base_model), **studio.identity(unlearned_model)}
    return Compared(studio.cached(base_model), studio.cached(unlearned_model), settings)


def prompts_of(inputs: Inputs) -> MeasuredPrompts:
    """Those of the boxes, or of the patch where these are empty."""
    patch = inputs.get("patch")
    return measured_prompts(lines(inputs["forget_prompts"]), lines(inputs["retain_prompts"]), patch and patch.record)


def plan_of(prompts: MeasuredPrompts, inputs: Inputs) -> Plan:
    """What a node draws. Raises ValueError as `Plan` does."""
    from ..unlearning_core.metrics.plan import Plan

    return Plan.of(prompts.retain, prompts.forget, inputs["seed"], inputs["seeds"], inputs["forget_seeds"])


class Judged(NamedTuple):
    """What counts, and a sentence where the judge cannot."""

    judge: Judge | None
    lacks: tuple[str, ...] = ()


def judged(plan: Plan, inputs: Inputs) -> Judged:
    """The optional judge, left out where it knows nothing that the forget prompts share: other figures need none."""
    from ..unlearning_core.metrics.forgetting import target_of

    judge = inputs.get("judge")
    if judge is None or not plan.forget:
        return Judged(judge)
    try:
        target_of(judge.domains, plan.forget)
    except ValueError as error:
        return Judged(None, (f"UA, IRA and CRA are missing: {error}",))
    return Judged(judge)


def check_measured_inputs(inputs: Inputs) -> None:
    """Raises ValueError for prompts that cannot be measured, or a bad prefix, where they are not linked.

    With a patch, whose prompts are known only when it is there, the boxes may be empty.
    """
    forget, retain = (lines(inputs.get(name, "")) for name in ("forget_prompts", "retain_prompts"))
    given = measured_prompts(forget, retain, None)
    if given.retain or ("retain_prompts" in inputs and "patch" not in inputs):
        check_measured(given.retain, given.forget)
    if "filename_prefix" in inputs:
        check_prefix(inputs["filename_prefix"])


def model_names(names: tuple[str, ...], count: int) -> list[str]:
    """A name for each model: the given ones, then `model 2` and so on.

    Raises ValueError when there are more names than models, two are the same, or one stands for the base.
    """
    from ..unlearning_core.metrics.evaluation import check_names

    if len(names) > count:
        raise ValueError(f"names: {len(names)} lines for {count} models; write one per model, or fewer")
    named = [*names, *(f"model {index + 1}" for index in range(len(names), count))]
    check_names(named)
    return named
