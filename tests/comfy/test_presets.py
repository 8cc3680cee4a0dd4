"""Presets of Unlearn Concept, and prompts that measuring nodes take from a patch, on a running ComfyUI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from comfyui import PromptError, Server
from graphs import node, saved_patch, training, unlearn

from unlearning_core.measured import trained_prompts
from unlearning_core.patch import Record
from unlearning_core.presets import CHOICES, FREE, PRESETS
from unlearning_core.prompts import held_out
from unlearning_core.settings import CUSTOM, Settings
from unlearning_core.tiny.world import CONCEPTS

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]
GIVEN = {name: value for name, value in unlearn()["inputs"].items() if name in FREE}  # what a preset leaves to the node


def info(server: Server, name: str) -> dict[str, Any]:
    """What ComfyUI tells the front end about a node."""
    told: dict[str, Any] = server._request("/object_info")[name]
    return told


def test_a_preset_decides_and_is_in_the_record(server: Server, run_prompt: RunPrompt) -> None:
    quick = PRESETS["quick"]
    entry = run_prompt(training("quick", thoroughness="quick", method="esd", weights="all", rank=4, wordings=0))
    record = Record.read(saved_patch(server, entry))
    assert (record.method, record.options) == (quick.method, asdict(quick.objective))
    assert record.settings == asdict(Settings(**{**GIVEN, **quick.values(1)}))


def test_a_preset_trains_longer_for_many_prompts(server: Server, run_prompt: RunPrompt) -> None:
    forget = "\n".join(f"{concept} in noto style" for concept in [*CONCEPTS][:11])
    entry = run_prompt(training("many", thoroughness="balanced", forget_prompts=forget, overwrite_prompt="a star"))
    balanced = PRESETS["balanced"]
    assert Record.read(saved_patch(server, entry)).settings["steps"] == 11 * balanced.steps_each


def test_without_a_choice_the_widgets_decide(server: Server, run_prompt: RunPrompt) -> None:
    record = Record.read(saved_patch(server, run_prompt(training("custom", method="uce", seed=5))))
    assert (record.settings["preset"], record.settings["seed"], record.method) == (CUSTOM, 5, "uce")


def test_attacks_within_training_and_parts_of_a_batch(server: Server, run_prompt: RunPrompt) -> None:
    chosen = {"relearning": 2, "adversaries": 2, "micro_batch": 1}
    record = Record.read(saved_patch(server, run_prompt(training("attacked", **chosen))))
    assert {name: record.settings[name] for name in chosen} == chosen


def test_the_front_end_knows_what_to_hide(server: Server) -> None:
    told = info(server, "UnlearnConcept")
    inputs = {**told["input"]["required"], **told["input"]["optional"]}
    widgets = [name for name, (kind, _) in inputs.items() if kind not in ("MODEL", "CLIP", "LATENT")]
    latest = ["wordings", "thoroughness", "adversaries", "retain_ratio", "held_wordings", "micro_batch", "relearning"]
    assert widgets[-len(latest) :] == latest  # files have values by place
    _, choice = inputs["thoroughness"]
    assert (choice["options"], choice["default"]) == ([*CHOICES], CUSTOM)
    hidden = [names for lists in choice["hides"].values() for names in lists.values()]
    assert {name for names in hidden for name in names} <= {*widgets}
    assert all("method" in names for names in choice["hides"]["preset"].values())
    assert choice["hides"]["method"]["ovw"] == []


def metric(**changes: Any) -> dict[str, Any]:
    """Retention Metric of "unlearn" against "load", on coarse pictures."""
    loaded = {"base_model": ["load", 0], "unlearned_model": ["unlearn", 0], "clip": ["load", 1], "vae": ["load", 2]}
    drawn = {"seed": 0, "seeds": 1, "forget_seeds": 1, "sampler_name": "euler", "scheduler": "simple", "steps": 1}
    sized = {"cfg": 1.0, "width": 64, "height": 64}
    return node("RetentionMetric", **(loaded | drawn | sized | {"forget_prompts": "", "retain_prompts": ""} | changes))


def measured(entry: dict[str, Any]) -> tuple[list[str], list[str], str]:
    """The forget and the retain prompts of the metric, and what it shows."""
    [figures], [page] = entry["outputs"]["metric"]["retention"], entry["outputs"]["metric"]["text"]
    forget, retain = ([row["prompt"] for row in figures[kind]] for kind in ("forget", "retain"))
    return forget, retain, page


def test_empty_boxes_take_the_patchs_prompts_and_held_out_ones(server: Server, run_prompt: RunPrompt) -> None:
    graph = training("measured", method="uce", forget_prompts="a cat face\na guitar", retain_prompts="a pizza")
    entry = run_prompt(graph | {"metric": metric(patch=["unlearn", 1])})
    forget, retain, page = measured(entry)
    record = Record.read(saved_patch(server, entry))
    assert forget == record.forget == ["a cat face", "a guitar"]
    assert retain == [*held_out(record.forget, trained_prompts(record))]
    assert not {"a pizza", "a guitar"} & {*retain}
    assert "forget prompts, from the patch: 'a cat face', 'a guitar'" in page
    assert "retain prompts, which training did not see: " in page


def test_a_clashing_retain_line_is_left_out_and_told(run_prompt: RunPrompt) -> None:
    graph = {"load": node("LoadTinyT2I"), "unlearn": unlearn(method="uce")}
    graph |= {"metric": metric(patch=["unlearn", 1], retain_prompts="A CAT FACE\na car")}
    forget, retain, page = measured(run_prompt(graph))
    assert (forget, retain) == (["a cat face"], ["a car"])
    assert "retain prompts: 'A CAT FACE' left out, being a forget prompt too" in page


def test_boxes_may_be_empty_with_a_patch_alone(server: Server) -> None:
    graph = {"load": node("LoadTinyT2I"), "unlearn": unlearn(method="uce"), "metric": metric(forget_prompts="a cat")}
    with pytest.raises(PromptError, match="retain prompts: empty"):
        server.run(graph)
