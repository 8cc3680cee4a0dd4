"""Does It Stay Forgotten, on a running ComfyUI and beside its modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfyui import PromptError, Server
from graphs import Graph, node, unlearn
from torch import Tensor

from unlearning_core.attacks.examine import UNSEEN
from unlearning_core.freetext import FreeText
from unlearning_core.metrics.plan import BASE

RunPrompt = Callable[[dict[str, Any]], dict[str, Any]]

ATTACKS = (
    "plain",
    "img2img strengths=0.5",
    "embedding steps=2 starts=1",
    "prompt_search steps=1 starts=1 tries=2",
    "relearning steps=2 rates=0.001",
)
INPUTS: dict[str, Any] = {
    "base_model": ["load", 0],
    "clip": ["load", 1],
    "vae": ["load", 2],
    "judge": ["load", 3],
    "models.model0": ["unlearn", 0],
    "models.model1": ["load", 0],
    "names": "ovw\nuntouched",
    "attacks": "\n".join(ATTACKS),
    "forget_prompts": "a cat face in noto style",
    "other_prompts": "a car in noto style",
    "seed": 0,
    "seeds": 1,
    "examples": 1,
    "steps": 6,
    "cfg": 3.0,
    "width": 128,
    "height": 128,
}


def graph(**changes: Any) -> Graph:
    return {"load": node("LoadTinyT2I"), "unlearn": unlearn(), "it": node("DoesItStayForgotten", **INPUTS | changes)}


def test_the_node_attacks_every_model(server: Server, run_prompt: RunPrompt) -> None:
    output = run_prompt(graph())["outputs"]["it"]
    [figures], [table] = output["attacks"], output["text"]
    by_name = {model["name"]: model["attacks"] for model in figures["models"]}
    assert [*by_name] == [BASE, UNSEEN, "ovw", "untouched"]
    assert by_name["untouched"] == by_name[BASE]
    assert [*by_name["ovw"]] == [line.split()[0] for line in ATTACKS]
    assert by_name[BASE]["plain"]["share"] == 1 > by_name[UNSEEN]["plain"]["share"]
    assert all(attack["network calls"] > 0 for attacks in by_name.values() for attack in attacks.values())
    assert figures["concept"] == "cat face"
    [found] = by_name["ovw"]["prompt_search"]["settings"]
    assert len(found["words"].split()) == 3 and found["words"] in table
    assert table.startswith(
        "'cat face' comes back under the strongest attack in this share of pictures: base model 100"
    )
    assert len(output["images"]) == 2
    assert [file["filename"].rpartition(".")[2] for file in output["report"]] == ["json", "csv"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": "nothing"}, "attacks: 'nothing' is unknown"),
        ({"forget_prompts": " "}, "forget prompts: empty"),
        ({"other_prompts": ""}, "other prompts: empty"),
        ({"names": "a\na"}, "two models have the same name"),
        ({"filename_prefix": "../out"}, "filename_prefix"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    run_prompt: RunPrompt, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PromptError, match=message):
        run_prompt(graph(**changes))


def test_gradients_reach_the_tokens_in_comfyui(pack: Callable[[str], Any], model: Any, clip: Any) -> None:
    """And a conditioning that changes between calls is read anew."""
    with torch.inference_mode(False), torch.enable_grad(), pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        [cond] = host.encode(["a cat face"])
        free = FreeText(cond, None)

        def predicted() -> Tensor:
            x0: Tensor = host.predict_x0(host.noise([0], 128, 128), host.sigmas(2)[:1], [free.cond()])
            return x0

        with host.attach({}):
            before = predicted()
            before.square().mean().backward()
        [offset] = free.offsets
        assert offset.grad is not None and offset.grad.any()
        assert torch.equal(before, host.predict_x0(host.noise([0], 128, 128), host.sigmas(2)[:1], [cond]))
        offset.data.fill_(0.5)
        with torch.no_grad():
            assert not torch.allclose(predicted(), before)


def test_gradients_reach_the_words_in_comfyui(pack: Callable[[str], Any], model: Any, clip: Any) -> None:
    """Through a text encoder that the executor loaded, which is left as it was."""
    text_encoder = clip.cond_stage_model
    before = {name: id(weight) for name, weight in text_encoder.named_parameters()}
    with torch.inference_mode(False), torch.enable_grad(), pack("nodes.host.private").private_copy(model) as private:
        host = pack("nodes.host.model").ComfyModel(private, clip)
        [cond] = host.encode(["a cat face"])
        found = host.embedded("a cat face")
        assert torch.allclose(found.cond[0][0], cond[0][0], atol=1e-5)
        with host.attach({}):
            x0 = host.predict_x0(host.noise([0], 128, 128), host.sigmas(2)[:1], [found.cond])
            [gradient] = torch.autograd.grad(x0.square().mean(), [found.vectors])
        assert gradient.shape == (len(found.tokens), found.vectors.shape[1]) and gradient[1:4].any(1).all()
    assert {name: id(weight) for name, weight in text_encoder.named_parameters()} == before
