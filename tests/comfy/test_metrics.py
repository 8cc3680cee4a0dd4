"""The measuring nodes beside Retention Metric, on a running ComfyUI."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from comfyui import PromptError, Server
from graphs import Graph, node, unlearn
from PIL import Image

from unlearning_core.cli import main
from unlearning_core.tiny import MODEL

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]

MEASURED = {
    "retain_prompts": "a car in noto style\na frog in fluent style",
    "forget_prompts": "a cat face in noto style",
    "seed": 0,
    "seeds": 2,
    "forget_seeds": 1,
    "sampler_name": "euler",
    "scheduler": "simple",
    "steps": 3,
    "cfg": 3.0,
    "width": 128,
    "height": 128,
}
PARTS = {"clip": ["load", 1], "vae": ["load", 2]}
BOTH = {"base_model": ["load", 0], "unlearned_model": ["unlearn", 0], **PARTS}
LABELS = "a {}: cat face, dog face, car, frog\n{} style: noto, fluent"


def graph(**nodes: dict[str, Any]) -> Graph:
    """The shipped model, one that was trained for three steps, and `nodes`."""
    trained = unlearn(method="esd", retain_prompts="", weights="cross_attention")
    return {"load": node("LoadTinyT2I"), "unlearn": trained, **nodes}


def forgetting(**changes: Any) -> dict[str, Any]:
    return node("ForgettingMetric", **{**BOTH, "judge": ["load", 3], **MEASURED, **changes})


def quality(**changes: Any) -> dict[str, Any]:
    return node("CLIPScoreFrechet", **{**BOTH, "clip_model": "shipped", "fid": False, **MEASURED, **changes})


def compare(**changes: Any) -> dict[str, Any]:
    inputs = {"base_model": ["load", 0], **PARTS, "names": "", "clip_model": "shipped", "fid": False, **MEASURED}
    return node("CompareMethods", **{**inputs, "models.model0": ["unlearn", 0], **changes})


def saved(server: Server, output: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The JSON and the CSV that a node left in the output folder."""
    read, table = (
        (server.base_directory / "output" / file["subfolder"] / file["filename"]).read_text(encoding="utf-8")
        for file in output["report"]
    )
    return json.loads(read), list(csv.DictReader(table.splitlines()))


JUDGES: dict[str, dict[str, Any]] = {
    "nearest picture": {},
    "zero-shot CLIP": node("CLIPJudge", clip_model="shipped", labels=LABELS),
    "diffusion classifier": node("DiffusionClassifierJudge", base_model=["load", 0], **PARTS, labels=LABELS),
}


@pytest.mark.parametrize("kind", JUDGES)
def test_forgetting_with_each_judge(server: Server, run_prompt: RunPrompt, kind: str) -> None:
    judge = ["judge", 0] if JUDGES[kind] else ["load", 3]
    nodes = {"judge": JUDGES[kind]} if JUDGES[kind] else {}
    output = run_prompt(graph(**nodes, metric=forgetting(judge=judge, steps=15)))["outputs"]["metric"]
    [figures], [table] = output["forgetting"], output["text"]
    assert figures["settings"]["judge"].startswith(kind)
    assert figures["base"]["ua"] == 0
    assert figures["base"]["right"] == 1
    assert figures["base"]["ira"] == 1
    assert "judge's own accuracy (base pictures) | 100.0%" in table
    read, rows = saved(server, output)
    assert read == figures
    assert {"ua", "base right", "setting sampler", "setting judge"} <= {row["figure"] for row in rows}


def test_the_diffusion_classifier_keeps_to_the_base(run_prompt: RunPrompt) -> None:
    """The model that draws last shares its weights with the judge, and is trained to pieces."""
    broken = node("UnlearnConcept", **{**graph()["unlearn"]["inputs"], "learning_rate": 0.05, "weights": "all"})
    metric = forgetting(unlearned_model=["broken", 0], judge=["judge", 0], steps=15)
    entry = run_prompt(graph(judge=JUDGES["diffusion classifier"], broken=broken, metric=metric))
    [figures] = entry["outputs"]["metric"]["forgetting"]
    assert figures["base"]["right"] == 1
    assert figures["unlearned"]["ira"] < 1


def test_clip_score_and_frechet(server: Server, run_prompt: RunPrompt) -> None:
    entry = run_prompt(graph(changed=quality(), same=quality(unlearned_model=["load", 0])))
    [changed], [same] = (entry["outputs"][name]["quality"] for name in ("changed", "same"))
    assert changed["frechet_alexnet"] > 0 == pytest.approx(same["frechet_alexnet"], abs=1e-6)
    assert changed["cmmd"] > 0
    assert same["clip_score"]["unlearned"] == same["clip_score"]["base"]
    assert changed["fid"] is None
    read, rows = saved(server, entry["outputs"]["changed"])
    assert read == changed
    assert "frechet alexnet" in {row["figure"] for row in rows}


def test_compare_methods(server: Server, run_prompt: RunPrompt) -> None:
    node_inputs = {"models.model1": ["load", 0], "names": "ESD", "judge": ["load", 3]}
    output = run_prompt(graph(compare=compare(**node_inputs)))["outputs"]["compare"]
    [figures], [table] = output["comparison"], output["text"]
    assert [model["name"] for model in figures["models"]] == ["model 2", "ESD"]
    assert figures["models"][0]["retention"]["integrity"] <= 1e-6 < figures["models"][1]["retention"]["integrity"]
    told, head = table.splitlines()[:3:2]
    assert told.startswith("model 2 moves other pictures least, by 0.000; next is ESD, ")
    known = ["model", "I ↓", "95 % interval", "forget distance ↑", "UA ↑", "IRA ↑", "CRA ↑"]
    assert [column for column in head.strip("| ").split(" | ") if column in known] == known
    assert len(output["images"]) == 2
    read, rows = saved(server, output)
    assert read == figures
    assert {row["model"] for row in rows} == {"ESD", "model 2"}


def test_compare_methods_tells_what_comes_back(server: Server, run_prompt: RunPrompt) -> None:
    changes = {"attacks": "plain\nimg2img strengths=0.1", "judge": ["load", 3]}
    output = run_prompt(graph(compare=compare(**changes)))["outputs"]["compare"]
    [figures], [table] = output["comparison"], output["text"]
    found = {model["name"]: model["attacks"] for model in figures["attacks"]["models"]}
    strongest = max(attack["share"] for attack in found["model 1"].values())
    head, _, row = table.splitlines()[:3]
    assert head.strip("| ").split(" | ")[-1] == "comes back ↓"
    assert row.strip("| ").split(" | ")[-1].startswith(f"{strongest:.1%} (")
    assert "Comes back: under the strongest attack" in table
    _, rows = saved(server, output)
    assert {"plain", "img2img"} <= {row["kind"] for row in rows if row["figure"] == "share"}


def test_retention_metric_leaves_its_figures(server: Server, run_prompt: RunPrompt) -> None:
    metric = node("RetentionMetric", **BOTH, **MEASURED, filename_prefix="mine/kept")
    output = run_prompt(graph(metric=metric))["outputs"]["metric"]
    read, rows = saved(server, output)
    assert [read] == output["retention"]
    files = [*output["report"], *output["images"]]
    assert [file["filename"] for file in files] == [f"kept_00001_{end}" for end in (".json", ".csv", "sheet.png")]
    assert {(file["subfolder"], file["type"]) for file in files} == {("mine", "output")}
    distances = [float(row["value"]) for row in rows if (row["figure"], row["kind"]) == ("lpips", "retain")]
    assert sum(distances) / 4 == pytest.approx(read["integrity"])


def test_a_saved_sheet_opens_its_workflow(server: Server, run_prompt: RunPrompt) -> None:
    prompt = graph(metric=node("RetentionMetric", **BOTH, **MEASURED))
    [file] = run_prompt(prompt)["outputs"]["metric"]["images"]
    sheet = Image.open(BytesIO(server.download(file)))
    assert json.loads(sheet.info["prompt"]) == prompt


def test_the_command_gives_the_nodes_integrity(server: Server, run_prompt: RunPrompt, tmp_path: Path) -> None:
    """Same model, patch, prompts and seeds: `unlearn evaluate` with diffusers, and the node."""
    save = node("SaveUnlearningPatch", patch=["unlearn", 1], filename_prefix="both")
    nodes = graph(metric=node("RetentionMetric", **BOTH, **(MEASURED | {"steps": 15})), save=save)
    nodes["unlearn"]["inputs"]["learning_rate"] = 1e-2
    entry = run_prompt(nodes)
    [file] = entry["outputs"]["save"]["patch"]
    [figures] = entry["outputs"]["metric"]["retention"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{MEASURED['retain_prompts']}\n[forget]\n{MEASURED['forget_prompts']}\n")
    patch = server.base_directory / "output" / file["subfolder"] / file["filename"]
    options = {name: MEASURED[name] for name in ("seed", "seeds", "forget_seeds", "steps", "cfg", "width", "height")}
    options |= {"steps": 15, "base": MODEL, "patch": patch, "prompts": prompts, "out": tmp_path / "out"}
    main(["evaluate", *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())])
    [found] = json.loads((tmp_path / "out" / "figures.json").read_text())["models"]
    assert figures["integrity"] > 0.05
    assert found["retention"]["integrity"] == pytest.approx(figures["integrity"], abs=1e-3)
    assert found["retention"]["forget_distance"] == pytest.approx(figures["forget_distance"], abs=1e-3)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (forgetting(forget_prompts=" "), "forget prompts: empty"),
        (forgetting(retain_prompts=""), "retain prompts: empty"),
        (quality(retain_prompts=""), "retain prompts: empty"),
        (quality(clip_model="nothing"), "CLIP model: 'nothing' is neither 'shipped'"),
        (quality(clip_model="../../secret"), "must be a plain name"),
        (quality(fid=True), r"FID needs weights-inception-2015-12-05-6726825d\.pth"),
        (compare(retain_prompts="\n"), "retain prompts: empty"),
        (compare(**{"models.model1": ["load", 0]}, names="a\na"), "two models have the same name"),
        (node("CLIPJudge", clip_model="shipped", labels="cat, dog"), "labels: 'cat, dog' is not of the form"),
        (compare(backbone="squeeze"), r"squeezenet1_1_features\.safetensors"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(run_prompt: RunPrompt, bad: dict[str, Any], message: str) -> None:
    nodes = graph(bad=bad)
    if bad["class_type"] == "CLIPJudge":
        nodes["metric"] = forgetting(judge=["bad", 0])
    with pytest.raises(PromptError, match=message):
        run_prompt(nodes)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (forgetting(forget_prompts="a cat face in noto style\na car in fluent style"), "share nothing that the judge"),
        (forgetting(width=100), "width: 100 pixels; this model draws sides that are multiples of 8"),
        (quality(height=24), "height: 24 pixels; the metric needs sides of 31"),
        (compare(names="a\nb"), "names: 2 lines for 1 models"),
        (compare(attacks="plain"), "judge: attacks need one to say what came back"),
    ],
)
def test_bad_input_that_only_running_shows(run_prompt: RunPrompt, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        run_prompt(graph(bad=bad))


def test_figures_without_labels_are_nan(run_prompt: RunPrompt) -> None:
    """Retain prompts that name nothing the judge knows: IRA and CRA have no pictures, and the node says so."""
    metric = forgetting(retain_prompts="style")
    entry = run_prompt(graph(metric=metric, shown=node("PreviewAny", source=["metric", 1])))
    assert math.isnan(float(entry["outputs"]["shown"]["text"][0]))
