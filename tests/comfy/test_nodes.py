"""The nodes on a running ComfyUI: whole paths, files, bad input and cancel."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfyui
import pytest
import torch
from comfyui import PromptError, Server
from graphs import latent, node, sampling, saved_patch, training, unlearn
from node_pages import node_pages
from safetensors.torch import save_file

from unlearning_core.methods import METHODS
from unlearning_core.patch import UnlearningPatch

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]
QUICKSTART = Path(__file__).parents[2] / "workflows" / "api" / "quickstart.json"


def metric(**changes: Any) -> dict[str, Any]:
    """Retention Metric of "unlearn" against "load", on few and coarse pictures."""
    inputs = {
        "base_model": ["load", 0],
        "unlearned_model": ["unlearn", 0],
        "clip": ["load", 1],
        "vae": ["load", 2],
        "retain_prompts": "a car in noto style\na house",
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
    return node("RetentionMetric", **(inputs | changes))


def test_unlearn_and_measure(server: Server, run_prompt: RunPrompt) -> None:
    graph = training("measured") | {"metric": metric(judge=["load", 3], patch=["unlearn", 1])}
    graph["save"]["inputs"]["patch"] = ["metric", 5]
    entry = run_prompt(graph)
    shown = entry["outputs"]["metric"]
    [figures], [table] = shown["retention"], shown["text"]
    assert 0 < figures["integrity"] < 1
    assert 0 < figures["forget_distance"] < 1
    assert figures["noise_floor"] <= 1e-6
    assert 0 <= figures["unlearning_accuracy"] <= 1
    assert [len(row["lpips"]) for row in figures["retain"] + figures["forget"]] == [2, 2, 1]
    assert f"{figures['integrity']:.4f}" in table
    assert server.download(shown["images"][0]).startswith(b"\x89PNG")
    assert figures["settings"]["sampler"] == "euler"
    record = UnlearningPatch.load(saved_patch(server, entry)).record
    assert record.integrity == figures
    assert figures["settings"]["patch"] == UnlearningPatch.load(saved_patch(server, entry)).digest
    assert record.forget == ["a cat face"]


def test_base_against_itself_is_zero(run_prompt: RunPrompt) -> None:
    graph = {"load": node("LoadTinyT2I"), "metric": metric(unlearned_model=["load", 0], forget_prompts="")}
    [figures] = run_prompt(graph)["outputs"]["metric"]["retention"]
    assert figures["integrity"] <= 1e-6
    assert figures["forget_distance"] is None
    assert figures["unlearning_accuracy"] is None


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral"])
def test_pictures_do_not_depend_on_their_batch(run_prompt: RunPrompt, sampler: str) -> None:
    """The noise floor's second run draws the pictures in another order, so in other batches."""
    graph = {"load": node("LoadTinyT2I"), "metric": metric(unlearned_model=["load", 0], sampler_name=sampler)}
    [figures] = run_prompt(graph)["outputs"]["metric"]["retention"]
    assert figures["noise_floor"] <= 1e-6


def test_same_seed_gives_the_same_file(server: Server, run_prompt: RunPrompt) -> None:
    paths = []
    for prefix in ("first", "second"):
        run_prompt({"load": node("LoadTinyT2I"), "other": node("PreviewAny", source=["load", 3])})  # empties the cache
        paths.append(saved_patch(server, run_prompt(training(f"same/{prefix}"))))
    other = saved_patch(server, run_prompt(training("same/other", seed=1)))
    assert paths[0].read_bytes() == paths[1].read_bytes() != other.read_bytes()


def test_saved_patch_in_our_loader_and_in_the_stock_loader(server: Server, run_prompt: RunPrompt) -> None:
    trained = run_prompt(training("loaders") | sampling("trained", "unlearn") | sampling("base", "load"))
    name = saved_patch(server, trained).relative_to(server.base_directory / "output" / "loras").as_posix()
    entry = run_prompt(
        {
            "load": node("LoadTinyT2I"),
            "ours": loader("load", name, 1.0),
            "stock": node("LoraLoaderModelOnly", model=["load", 0], lora_name=name, strength_model=1.0),
            "zero": node("LoadPatchedModel", model=["load", 0], patch_file=name, strength=0.0, check_base=True),
        }
        | sampling("by ours", "ours")
        | sampling("by stock", "stock")
        | sampling("by zero", "zero")
    )
    base, expected = latent(server, trained, "base"), latent(server, trained, "trained")
    assert not torch.equal(expected, base)
    assert torch.equal(latent(server, entry, "by ours"), expected)
    assert torch.equal(latent(server, entry, "by stock"), expected)
    assert torch.equal(latent(server, entry, "by zero"), base)


def test_patch_of_another_base_is_refused(
    server: Server, run_prompt: RunPrompt, family_checkpoint: Callable[[str], None]
) -> None:
    family_checkpoint("sd15")
    path = saved_patch(server, run_prompt(training("of_tiny")))
    load = node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    with pytest.raises(PromptError, match="trained on another base model"):
        run_prompt({"load": load, "ours": loader("load", path.name, 1.0)} | sampling("never", "ours"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget_prompts": " \n"}, "forget prompts: empty; write at least one prompt"),
        ({"overwrite_prompt": "a dog\na bear"}, "2 lines for 1 forget prompts"),
        ({"steps": 0}, "smaller than min of 1"),
        ({"method.help_weight": -1.0}, "smaller than min of 0"),
        ({"method": "magic"}, f"method: unknown; choose one of {', '.join(METHODS)}"),
        ({"rank": -1}, "rank: -1 is out of range"),
        ({"method": "uce", "rank": 4}, "set rank to 0"),
        ({"method": "saddle", "micro_batch": 1}, "set micro_batch to 0"),
        ({"method": "nullspace", "weights": "attention"}, "needs text_projections"),
    ],
)
def test_bad_unlearning_input_is_refused_before_anything_runs(
    run_prompt: RunPrompt, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        run_prompt(training("never", **changes))


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("../x", "leaves output/loras"),
        ("a/../../b", "leaves output/loras"),
        ("a\\..\\b", "leaves output/loras"),
        (" ", "filename_prefix: empty"),
        ("./", "filename_prefix: empty"),
    ],
)
def test_file_names_outside_the_folder_are_refused_before_training(
    server: Server, run_prompt: RunPrompt, prefix: str, message: str
) -> None:
    files = set((server.base_directory / "output").rglob("*"))
    with pytest.raises(PromptError, match=message):
        run_prompt(training(prefix))
    assert set((server.base_directory / "output").rglob("*")) == files


def test_a_link_out_of_the_folder_is_refused_before_training(
    server: Server, run_prompt: RunPrompt, tmp_path: Path
) -> None:
    """Also one to another part of the output folder, where the loaders would not list the patch."""
    loras = server.base_directory / "output" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    for name, target in (("away", tmp_path), ("beside", loras.parent)):
        link = loras / name
        link.symlink_to(target, target_is_directory=True)
        try:
            with pytest.raises(PromptError, match="leaves output/loras"):
                run_prompt(training(f"{name}/x"))
        finally:
            link.unlink()
    assert not list(tmp_path.iterdir())


def test_bad_metric_input_is_refused_before_training(run_prompt: RunPrompt) -> None:
    trained = {"load": node("LoadTinyT2I"), "unlearn": unlearn()}
    with pytest.raises(PromptError, match="retain prompts: empty"):
        run_prompt(trained | {"metric": metric(retain_prompts="")})
    with pytest.raises(PromptError, match="retain prompts: empty"):
        run_prompt(trained | {"metric": metric(retain_prompts="a house", forget_prompts="A house")})


def loader(model: str, patch_file: str, strength: float) -> dict[str, Any]:
    return node("LoadPatchedModel", model=[model, 0], patch_file=patch_file, strength=strength, check_base=True)


def test_patches_stack_scale_and_cancel(server: Server, run_prompt: RunPrompt) -> None:
    """Two patches minus one of them is the other, bit for bit."""
    first, second = (str(saved_patch(server, run_prompt(training(f"stack {seed}", seed=seed))).name) for seed in (1, 2))
    entry = run_prompt(
        {
            "load": node("LoadTinyT2I"),
            "first": loader("load", first, 1.0),
            "both": loader("first", second, 1.0),
            "minus first": loader("both", first, -1.0),
            "second": loader("load", second, 1.0),
            "halves": loader("half", second, 0.5),
            "half": loader("load", second, 0.5),
            "none": loader("second", second, -1.0),
        }
        | {
            key: value
            for model in ("load", "both", "minus first", "second", "halves", "none")
            for key, value in sampling(f"by {model}", model).items()
        }
    )
    drawn = {model: latent(server, entry, f"by {model}") for model in ("load", "both", "minus first", "second")}
    assert torch.equal(drawn["minus first"], drawn["second"])
    assert torch.equal(latent(server, entry, "by halves"), drawn["second"])
    assert torch.equal(latent(server, entry, "by none"), drawn["load"])
    assert not torch.equal(drawn["both"], drawn["second"])


def test_unlearning_on_a_patched_model(server: Server, run_prompt: RunPrompt) -> None:
    """The second patch names the first in its file, and its loader wants it underneath."""
    first = str(saved_patch(server, run_prompt(training("continual first"))).name)
    graph = training("continual second", forget_prompts="a car", overwrite_prompt="a house", retain_prompts="a frog")
    graph["first"] = loader("load", first, 1.0)
    graph["unlearn"]["inputs"]["model"] = ["first", 0]
    path = saved_patch(server, entry := run_prompt(graph | sampling("trained", "unlearn")))
    assert UnlearningPatch.load(path).record.base.patched
    load = {"load": graph["load"], "second": loader("first", path.name, 1.0)}
    again = run_prompt(load | {"first": graph["first"]} | sampling("loaded", "second"))
    assert torch.equal(latent(server, again, "loaded"), latent(server, entry, "trained"))
    with pytest.raises(PromptError, match="patches were on it that are missing here"):
        run_prompt({"load": graph["load"], "second": loader("load", path.name, 1.0)} | sampling("never", "second"))


@pytest.mark.parametrize("method", ["ovw", "salun"])
def test_pictures_in_place_of_the_models_own(run_prompt: RunPrompt, server: Server, method: str) -> None:
    graph = training("pictures", method=method)
    drawn = sampling("drawn", "load")
    graph |= drawn
    graph["unlearn"]["inputs"] |= {"forget_latents": ["drawn sampled", 0], "learning_rate": 1e-3}
    with_pictures = UnlearningPatch.load(saved_patch(server, run_prompt(graph)))
    without = UnlearningPatch.load(saved_patch(server, run_prompt(training("without", method=method))))
    assert with_pictures.tensors.keys() == without.tensors.keys()
    assert any(not torch.equal(with_pictures.tensors[key], without.tensors[key]) for key in without.tensors)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_patch_that_the_stock_loader_opens(
    server: Server, run_prompt: RunPrompt, method: str
) -> None:
    graph = training(f"stock {method}", method=method, weights="method default")
    name = saved_patch(server, entry := run_prompt(graph | sampling("trained", "unlearn"))).name
    stock = node("LoraLoaderModelOnly", model=["load", 0], lora_name=name, strength_model=1.0)
    again = run_prompt({"load": graph["load"], "stock": stock} | sampling("by stock", "stock"))
    trained = latent(server, entry, "trained")
    assert trained.isfinite().all()
    assert torch.equal(latent(server, again, "by stock"), trained)


def test_unreadable_patch_files_are_refused(server: Server, run_prompt: RunPrompt, tmp_path: Path) -> None:
    whole = saved_patch(server, run_prompt(training("whole")))
    folder = whole.parent
    (folder / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    torch.save({"weight": torch.zeros(1)}, folder / "pickle.safetensors")
    save_file({"lora_unet_mid.diff": torch.zeros(1)}, folder / "foreign.safetensors")

    def message(name: str) -> str:
        loader = node("LoadPatchedModel", model=["load", 0], patch_file=name, strength=1.0, check_base=True)
        with pytest.raises(PromptError) as error:
            run_prompt({"load": node("LoadTinyT2I"), "ours": loader} | sampling("never", "ours"))
        return str(error.value)

    assert "cut short" in message("cut.safetensors")
    assert "pickle with another name" in message("pickle.safetensors")
    assert "holds no unlearning record" in message("foreign.safetensors")
    assert "not found in the loras folders" in message("../../secret.safetensors")


def test_cancel_in_training(server: Server, run_prompt: RunPrompt) -> None:
    """The base draws the same before and after, and no file is left."""
    load = {"load": node("LoadTinyT2I")}
    before = latent(server, entry := run_prompt(load | sampling("before", "load")), "before")
    assert entry["status"]["completed"]
    files = set((server.base_directory / "output").rglob("*"))

    prompt = server.post(training("cancelled", steps=2_000) | sampling("never", "unlearn"))
    cancelled_at = math.inf

    def cancel(progress: comfyui.Progress) -> None:
        nonlocal cancelled_at
        if progress.node == "unlearn" and progress.value > 10 and cancelled_at == math.inf:
            cancelled_at = time.monotonic()
            server.interrupt()

    entry = server.wait(prompt, cancel)
    free_after = time.monotonic() - cancelled_at
    kinds = [kind for kind, _ in entry["status"]["messages"]]
    assert "execution_interrupted" in kinds
    assert free_after < 2  # seconds, what the user is promised
    assert set((server.base_directory / "output").rglob("*")) == files
    after = latent(server, run_prompt(load | sampling("after", "load", last_step=9_999)), "after")
    assert torch.equal(before, after)


def test_missing_lpips_weights_are_named_before_training(
    comfyui_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no network
    with (
        comfyui.Server(comfyui_path, Path(sys.executable), tmp_path) as server,
        pytest.raises(PromptError, match=r"LPIPS needs squeezenet1_1's weights, squeezenet1_1_features\.safetensors"),
    ):
        server.run({"load": node("LoadTinyT2I"), "unlearn": unlearn(), "metric": metric(backbone="squeeze")})


def test_every_node_is_in_a_workflow_and_described(server: Server) -> None:
    nodes = {
        name: info
        for name, info in server._request("/object_info").items()
        if info.get("python_module", "").endswith("comfyui-unlearning")
    }
    pages = {page.node_id: page for page in node_pages()}
    assert nodes.keys() == pages.keys()
    for name, info in nodes.items():
        assert info["description"], name
        for kind in ("required", "optional"):
            for key, spec in info["input"].get(kind, {}).items():
                assert spec[1].get("tooltip"), f"{name}.{key} has no tooltip"
    workflows = (json.loads(path.read_text()) for path in QUICKSTART.parent.glob("*.json"))
    used = {node["class_type"] for workflow in workflows for node in workflow.values()}
    assert used & nodes.keys() == {name for name, page in pages.items() if page.shown_in_workflow}


@pytest.mark.parametrize("term", ["uce", "censor", "erase", "remove", "NSFW", "LECO", "slider", "forget"])
def test_the_node_search_finds_unlearn_concept(server: Server, term: str) -> None:
    found = server._request("/object_info/UnlearnConcept")["UnlearnConcept"]["search_aliases"]
    assert any(term.lower() in alias.lower() for alias in found)


def test_all_nodes_ask_for_forget_prompts_first(server: Server) -> None:
    nodes = server._request("/object_info")
    asked = [list(nodes[page.node_id]["input"]["required"]) for page in node_pages()]
    orders = [[name for name in names if name in ("forget_prompts", "retain_prompts")] for names in asked]
    assert [order for order in orders if len(order) > 1] == [["forget_prompts", "retain_prompts"]] * 5


def test_retain_prompt_that_is_a_forget_prompt_too_is_left_out(server: Server, run_prompt: RunPrompt) -> None:
    path = saved_patch(server, run_prompt(training("clash", method="uce", retain_prompts="a car\nA Cat Face")))
    assert UnlearningPatch.load(path).record.retain == ["a car"]


def test_method_tooltip_tells_of_every_method(server: Server) -> None:
    inputs = server._request("/object_info/UnlearnConcept")["UnlearnConcept"]["input"]["required"]
    tooltip = inputs["method"][1]["tooltip"]
    assert all(f"{name} - {kind.label}: {kind.summary}." in tooltip for name, kind in METHODS.items())
