"""Bad input is refused before anything runs: one mistake is one error, at the node that is wrong."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from comfyui import PromptError, Server
from graphs import node, saved_patch, training, unlearn

Graph = dict[str, dict[str, Any]]
LOADED = {"MODEL": 0, "CLIP": 1, "VAE": 2, "UNLEARNING_JUDGE": 3}

# For every node with checks of its own: a value of one input that is wrong, and what the error says.
MISTAKES: dict[str, list[tuple[str, Any, str]]] = {
    "UnlearnConcept": [
        ("forget_prompts", " \n", "forget prompts: empty"),
        ("overwrite_prompt", "a dog\na bear\na car", "overwrite prompt: 3 lines for 1 forget prompts"),
        ("rank", -1, "rank: -1 is out of range"),
        ("weights", "everything", "weights: 'everything' is unknown"),
        ("weights", {"a": 1}, "weights: {'a': 1} is no text"),
        ("thoroughness", "utter", "preset: 'utter' is unknown"),
    ],
    "SaveUnlearningPatch": [("filename_prefix", "../x", "filename_prefix: '../x' leaves output/loras")],
    "UnlearnFromRecipe": [
        ("recipe_file", "nowhere.toml", "recipe file nowhere.toml: not found"),
        ("recipe_file", 5, "recipe_file: 5 is no text"),
    ],
    "LoadPatchedModel": [
        ("patch_file", "nowhere.safetensors", "patch file nowhere.safetensors: not found"),
        ("patch_file", 5, "patch_file: 5 is no text"),
    ],
    "RetentionMetric": [
        ("retain_prompts", "", "retain prompts: empty"),
        ("filename_prefix", " ", "filename_prefix: empty"),
        ("filename_prefix", "a\nb", r"filename_prefix: 'a\nb': there are characters in it"),
        ("filename_prefix", "a\u202eb", r"filename_prefix: 'a\u202eb': there are characters in it"),
        ("filename_prefix", "C:\\b", r"filename_prefix: 'C:\\b' leaves output"),
        ("backbone", "resnet", "no LPIPS backbone is called 'resnet'"),
        ("backbone", {"a": 1}, "backbone: {'a': 1} is no text"),
    ],
    "ForgettingMetric": [("forget_prompts", "", "forget prompts: empty")],
    "CLIPScoreFrechet": [("clip_model", "nothing", "CLIP model: 'nothing' is neither")],
    "CompareMethods": [
        ("names", "one\ntwo", "names: 2 lines for 1 models"),
        ("clip_model", "..", "CLIP model: '..' must be a plain name"),
        ("attacks", "spell", "attacks: 'spell' is unknown"),
    ],
    "DoesItStayForgotten": [
        ("attacks", "spell", "attacks: 'spell' is unknown"),
        ("attacks", "plain\nplain", "attacks: plain stands there twice"),
        ("other_prompts", "", "other prompts: empty"),
        ("names", "one\ntwo", "names: 2 lines for 1 models"),
    ],
    "CLIPJudge": [("labels", "a cat", "labels: 'a cat' is not of the form")],
    "DiffusionClassifierJudge": [("labels", "", "labels: empty")],
    "NudeNetJudge": [("classes", "EARS", "classes: 'EARS' is unknown"), ("classes", "", "classes: empty")],
}


@pytest.fixture(scope="module")
def infos(server: Server) -> dict[str, dict[str, Any]]:
    """What ComfyUI tells the front end about the pack's nodes, with a patch file to choose."""
    saved_patch(server, server.run(training("refused")))
    answer = server._request("/object_info").items()
    return {name: info for name, info in answer if info.get("python_module", "").endswith("comfyui-unlearning")}


def graph_of(name: str, info: dict[str, Any], changes: dict[str, Any]) -> Graph:
    """The node "tested" with its widgets' defaults but for `changes`, and an output node behind it."""
    if name == "UnlearnConcept":
        tested = unlearn(**changes)
    else:
        inputs = {key: value for key, spec in specs(info) if (value := default(key, spec)) is not None}
        if "patch" in info["input"].get("optional", {}):
            del inputs["patch"]  # whose prompts would stand for empty boxes
        prompts = {"forget_prompts": "a cat face", "retain_prompts": "a car", "other_prompts": "a car"}
        tested = node(name, **(inputs | {key: text for key, text in prompts.items() if key in inputs} | changes))
        tested["inputs"] |= {"models.model0": ["load", 0]} if "models" in info["input"]["required"] else {}
    graph = {"load": node("LoadTinyT2I"), "unlearn": unlearn(), "tested": tested}
    return graph if info["output_node"] else graph | {"shown": node("PreviewAny", source=["tested", 0])}


def specs(info: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for kind in ("required", "optional"):
        yield from info["input"].get(kind, {}).items()


def default(key: str, spec: Any) -> Any:
    """A link, or the widget's default; None where nothing is needed."""
    if spec[0] in LOADED:
        return ["load", LOADED[spec[0]]]
    if spec[0] == "UNLEARNING_PATCH":
        return ["unlearn", 1]
    if spec[0] == "COMBO" and "default" not in spec[1]:
        return spec[1]["options"][0]
    return spec[1].get("default")


def errors_of(server: Server, graph: Graph) -> dict[str, list[dict[str, Any]]]:
    """ComfyUI's answer to a prompt that it refuses: the errors of each node."""
    body = json.dumps({"prompt": graph, "client_id": server.client_id}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/prompt", body)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    answer = json.load(refused.value)
    return {name: found["errors"] for name, found in answer["node_errors"].items()}


def test_one_mistake_is_one_error(
    server: Server, infos: dict[str, dict[str, Any]], pack: Callable[[str], ModuleType]
) -> None:
    nodes = pack("nodes")
    modules = (pack(f"nodes.{name}") for name in nodes.NODES)
    kinds: Iterator[Any] = (value for module in modules for value in vars(module).values() if isinstance(value, type))
    assert MISTAKES.keys() == {kind.define_schema().node_id for kind in kinds if "validate_inputs" in vars(kind)}
    for name, mistakes in MISTAKES.items():
        for key, value, sentence in mistakes:
            graph = graph_of(name, infos[name], {key: value})
            for order in (list(graph["tested"]["inputs"]), sorted(graph["tested"]["inputs"], reverse=True)):
                graph["tested"]["inputs"] = {key: graph["tested"]["inputs"][key] for key in order}
                [(place, [error])] = errors_of(server, graph).items()
                assert place == "tested"
                assert error["details"].startswith(sentence)


def numbers(info: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """(choices to make, input, its range) of every numeric input, those of methods too."""
    for key, spec in specs(info):
        if spec[0] in ("INT", "FLOAT"):
            yield {}, key, spec[1]
        if spec[0] == "COMFY_DYNAMICCOMBO_V3":
            for option in spec[1]["options"]:
                for own, (kind, limits) in option["inputs"]["required"].items():
                    assert kind in ("INT", "FLOAT")
                    yield {key: option["key"]}, f"{key}.{own}", limits


def test_numbers_out_of_range_are_one_error(server: Server, infos: dict[str, dict[str, Any]]) -> None:
    count = 0
    for name, info in infos.items():
        if name == "NudeNetJudge" and not find_spec("nudenet"):
            continue  # its missing package is another mistake
        for choices, key, limits in numbers(info):
            outside = (limits["min"] - 1, 2 * limits["max"] + 1, 10**400, math.nan, "nan", math.inf, -math.inf)
            for value in outside:
                found = errors_of(server, graph_of(name, info, choices | {key: value}))
                assert len(found) == 1 and len(found["tested"]) == 1, (name, key, value, found)
                assert found["tested"][0]["details"].startswith(key), (name, key, value)
                count += 1
    assert count > 100


class OtherClip:
    """A text encoder whose tokens have another width than the model reads."""

    def __init__(self, clip: Any) -> None:
        self.tokenize = clip.tokenize
        self._encode = clip.encode_from_tokens_scheduled

    def encode_from_tokens_scheduled(self, tokens: Any) -> list[Any]:
        return [[cond[..., :-8], extra] for cond, extra in self._encode(tokens)]


def broken(model: Any) -> Any:
    """With a LoRA of NaN on one weight."""
    patched = model.clone()
    key = next(key for key in model.model_state_dict() if key.endswith("to_out.0.weight"))
    patched.add_patches({key: ("diff", (torch.full_like(model.model_state_dict()[key], math.nan),))})
    return patched


@pytest.mark.parametrize("method", ["ovw", "uce"])
def test_models_that_cannot_predict_are_refused_before_work(
    pack: Callable[[str], ModuleType], model: Any, clip: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = pack("nodes.unlearn").UnlearnConcept
    monkeypatch.setattr(node, "hidden", SimpleNamespace(unique_id="1"), raising=False)
    for name in ("unlearning", "progress"):  # there is no server
        monkeypatch.setattr(pack(f"nodes.host.{name}"), "show", lambda text, node_id: None)
    monkeypatch.setattr(pack("nodes.host.live"), "send", lambda run, **content: None)
    monkeypatch.setattr(pack("unlearning_core.unlearn"), "make_bank", None)  # what would begin the work
    texts = {"forget_prompts": "a cat", "overwrite_prompt": "", "retain_prompts": "a car"}
    inputs = {**texts, "weights": "method default", "width": 64, "height": 64}
    with pytest.raises(ValueError, match=r"model: it cannot predict 64 x 64 .*use the text encoder that goes with it"):
        node.execute(model, OtherClip(clip), {"method": method}, **inputs)
    with pytest.raises(ValueError, match=r"model: the base predicts NaN or infinity"):
        node.execute(broken(model), clip, {"method": method}, **inputs)


@pytest.mark.parametrize("value", [math.nan, -11.0])
def test_a_linked_number_is_checked_too(server: Server, value: float, infos: dict[str, dict[str, Any]]) -> None:
    for name, key in (("LoadPatchedModel", "strength"), ("RetentionMetric", "cfg")):
        graph = graph_of(name, infos[name], {key: ["number", 0]})
        graph["number"] = node("PrimitiveFloat", value=value)
        with pytest.raises(PromptError, match=f"{key}: .* is out of range"):
            server.run(graph)
