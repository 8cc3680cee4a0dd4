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
from safetensors.torch import save_file

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
    assert record.forget == ["a cat face"]


def test_base_against_itself_is_zero(run_prompt: RunPrompt) -> None:
    graph = {"load": node("LoadTinyT2I"), "metric": metric(unlearned_model=["load", 0], forget_prompts="")}
    [figures] = run_prompt(graph)["outputs"]["metric"]["retention"]
    assert figures["integrity"] <= 1e-6
    assert figures["forget_distance"] is None
    assert figures["unlearning_accuracy"] is None


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_ancestral"])
def test_pictures_do_not_depend_on_their_company(run_prompt: RunPrompt, sampler: str) -> None:
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
            "ours": node("LoadPatchedModel", model=["load", 0], patch_file=name, strength=1.0, check_base=True),
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
    loader = node("LoadPatchedModel", model=["load", 0], patch_file=path.name, strength=1.0, check_base=True)
    load = node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors")
    with pytest.raises(PromptError, match="trained on another base model"):
        run_prompt({"load": load, "ours": loader} | sampling("never", "ours"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget_prompts": " \n"}, "forget prompts: empty; write at least one prompt"),
        ({"retain_prompts": "a car\nA Cat Face"}, "'A Cat Face' is a forget prompt too"),
        ({"overwrite_prompt": "a dog\na bear"}, "2 lines for 1 forget prompts"),
        ({"steps": 0}, "smaller than min of 1"),
        ({"method.help_weight": -1.0}, "smaller than min of 0"),
        ({"method": "magic"}, "method: unknown; choose one of ovw, "),
    ],
)
def test_bad_unlearning_input_is_refused_before_anything_runs(
    run_prompt: RunPrompt, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        run_prompt(training("never", **changes))


def test_bad_metric_input_is_refused_before_training(run_prompt: RunPrompt) -> None:
    trained = {"load": node("LoadTinyT2I"), "unlearn": unlearn()}
    with pytest.raises(PromptError, match="retain prompts: empty"):
        run_prompt(trained | {"metric": metric(retain_prompts="")})
    with pytest.raises(PromptError, match="'a house' is a forget prompt too"):
        run_prompt(trained | {"metric": metric(forget_prompts="a house")})


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

    prompt = server.post(training("cancelled", steps=100_000) | sampling("never", "unlearn"))
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
        pytest.raises(PromptError, match=r"LPIPS needs alexnet's weights, alexnet_features\.safetensors"),
    ):
        server.run({"load": node("LoadTinyT2I"), "unlearn": unlearn(), "metric": metric()})


def test_every_node_is_in_a_workflow_and_described(server: Server) -> None:
    nodes = {
        name: info
        for name, info in server._request("/object_info").items()
        if info.get("python_module", "").endswith("comfyui-unlearning")
    }
    assert len(nodes) == 5
    for name, info in nodes.items():
        assert info["description"], name
        for kind in ("required", "optional"):
            for key, spec in info["input"].get(kind, {}).items():
                assert spec[1].get("tooltip"), f"{name}.{key} has no tooltip"
    used = {node["class_type"] for node in json.loads(QUICKSTART.read_text()).values()}
    assert used == nodes.keys() - {"LoadPatchedModel"}
