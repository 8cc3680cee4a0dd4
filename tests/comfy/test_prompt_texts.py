"""What both hosts read alike, and refusals of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pipelines
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import host_of, load
from unlearning_core.hosts.texts import check_plain, construct
from unlearning_core.methods import METHODS
from unlearning_core.prompts import Prompts, check_characters
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

Pack = Callable[[str], ModuleType]
FAMILIES = ["sd15", "sd21", "sdxl", "sd3", "flux"]
PARTS = [
    "a frog",
    " ",
    "(",
    ")",
    "[",
    "]",
    "\\",
    ":",
    "1.5",
    "embedding:",
    ",",
    "(a:1)",
    "embedding:x",
    "((",
    "é",
    "BREAK",
]
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def host(comfyui_path: Path, family: str) -> DiffusersModel:
    return host_of(pipelines.make_pipeline(family, comfyui_path))


def passes(prompt: str) -> bool:
    try:
        check_characters([prompt])
        check_plain([prompt])
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def tokenizer(pack: Pack) -> Any:
    """ComfyUI's of CLIP, with a folder of embeddings as its loaders make it."""
    return pack("nodes.host.model").comfy.sd1_clip.SDTokenizer(embedding_directory="no such folder")


@given(prompt=st.one_of(st.lists(st.sampled_from(PARTS), max_size=9).map("".join), st.text(max_size=12)))
@QUICK
def test_what_passes_is_plain_text_to_comfyui(tokenizer: Any, prompt: str) -> None:
    """The ids that diffusers' own call of the tokenizer gives, at weight 1."""
    assume(passes(prompt))
    [read] = tokenizer.tokenize_with_weights(prompt)
    plain = tokenizer.tokenizer(prompt, padding="max_length", max_length=77)["input_ids"]
    assert read == [(token, 1.0) for token in plain]


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a (frog:1.5) here", "(frog:1.5)"),
        ("cat (animal)", "(animal)"),
        ("((a frog))", "((a frog)"),
        (r"a cat \(animal\)", r"\("),
        ("a photo, embedding:sks", "embedding:sks"),
        ("smile :(", "("),
        ("[cat:dog:0.5]", None),
        ("smile :)", None),
        ("myembedding:x", None),
    ],
)
def test_constructs(prompt: str, found: str | None) -> None:
    assert construct(prompt) == found


@pytest.mark.parametrize("family", FAMILIES, scope="module")
def test_a_prompt_over_the_window_is_refused(host: DiffusersModel) -> None:
    assert len(host.encode(["cat " * 30])) == 1
    with pytest.raises(ValueError, match=r"prompt 'cat cat .*\.\.\..*': \d+ tokens, and the text encoder reads \d+"):
        host.encode(["a car", "cat " * 300])


def test_the_library_refuses_before_work() -> None:
    model = load(MODEL)
    for prompt, message in (("a (frog:1.5)", "is ComfyUI's syntax"), ("a frog " * 20, "tokens, and the text encoder")):
        with pytest.raises(ValueError, match=message):
            unlearn(model, METHODS["ovw"](), Prompts(("a cat face",), ("a dog face",), (prompt,)), Settings(steps=1))


@pytest.mark.parametrize("character", ["\0", "\x1b", "\ud800"])
def test_what_is_no_text_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="is no text; remove it") as error:
        Prompts((f"a cat{character}",), ("",))
    str(error.value).encode("utf-8")
