"""Prompts of any length and spelling: batches of unequal token counts, and what both hosts read alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pipelines
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hosts import FAMILIES, PROMPTS, SETTINGS, UNETS, comfy_host, small_unet

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import host_of, load
from unlearning_core.hosts.texts import check_plain, construct
from unlearning_core.methods import METHODS
from unlearning_core.prompts import Prompts, check_characters
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import unlearn

Pack = Callable[[str], ModuleType]
LENGTHS = (77, 154, 231, 90)  # 90 and 77 have no small common multiple
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
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def host(comfyui_path: Path, family: str) -> DiffusersModel:
    return host_of(pipelines.make_pipeline(family, comfyui_path))


@pytest.fixture(scope="module")
def opened(pack: Pack, host: DiffusersModel, family: str) -> Iterator[Any]:
    """ComfyUI's host; prompts of digits stand for conditionings of that many tokens."""
    import comfy.sd

    with torch.inference_mode():
        weights = {name: weight.clone() for name, weight in host.denoiser.state_dict().items()}
        unet = family in UNETS
        model = small_unet(family, weights) if unet else comfy.sd.load_diffusion_model_state_dict(weights)
    with comfy_host(pack, model, host) as opened:
        [text] = host.encode(["a car"])
        for index, length in enumerate(LENGTHS):
            generator = torch.Generator().manual_seed(index)
            tokens = torch.randn(1, length, text.tokens.shape[1], generator=generator)
            pooled = {} if text.pooled is None else {"pooled_output": text.pooled[None]}
            opened._encoded[str(length)] = [[tokens, pooled]]
        yield opened


@pytest.mark.parametrize("family", FAMILIES, scope="module")
class TestUnequalLengths:
    @given(lengths=st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=5))
    @settings(max_examples=6, deadline=None)
    def test_a_batch_predicts_as_one_by_one(self, opened: Any, host: DiffusersModel, lengths: list[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(len(lengths), host.channels, 8, 8, generator=generator) * host.noise_scale
        sigma = torch.linspace(0.2, 0.9, len(lengths))
        conds = opened.encode([str(length) for length in lengths])
        with torch.no_grad():
            together = opened.predict_x0(x, sigma, conds)
            alone = [
                opened.predict_x0(x[row : row + 1], sigma[row : row + 1], [cond]) for row, cond in enumerate(conds)
            ]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)

    def test_training_runs(self, opened: Any) -> None:
        prompts = Prompts(("154",), ("77",), ("90", "231"))
        patch = unlearn(
            opened,
            METHODS["ovw"](help_weight=1.0),
            prompts,
            SETTINGS.__class__(**{**vars(SETTINGS), "steps": 1, "batch_size": 4, "runs": 4}),
        )
        assert all(change.isfinite().all() for change in patch.changes().values())


def passes(prompt: str) -> bool:
    try:
        check_characters([prompt])
        check_plain([prompt])
    except ValueError:
        return False
    return True


@given(parts=st.one_of(st.lists(st.sampled_from(PARTS), max_size=9).map("".join), st.text(max_size=12)))
@QUICK
def test_what_passes_is_plain_text_to_comfyui(pack: Pack, tmp_path_factory: pytest.TempPathFactory, parts: str) -> None:
    from comfy.sd1_clip import SDTokenizer

    tokenizer = tokenizer_of(SDTokenizer)
    if not passes(parts):
        return
    [read] = [[pair for batch in tokenizer.tokenize_with_weights(parts) for pair in batch]]
    ids = [token for token, _ in read if token not in (tokenizer.start_token, tokenizer.end_token)]
    plain = [
        token
        for token in tokenizer.tokenizer(parts)["input_ids"]
        if token not in (tokenizer.start_token, tokenizer.end_token)
    ]
    assert {weight for _, weight in read} == {1.0}
    assert ids == plain


_made: list[Any] = []


def tokenizer_of(kind: Any) -> Any:
    """ComfyUI's tokenizer of CLIP, with a folder of embeddings, as its loaders make it."""
    if not _made:
        _made.append(kind(embedding_directory="no such folder"))
    return _made[0]


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
            unlearn(model, METHODS["ovw"](), Prompts(("a cat face",), ("a dog face",), (prompt,)), SETTINGS)


@pytest.mark.parametrize("character", ["\0", "\x1b", "\ud800"])
def test_what_is_no_text_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="is no text; remove it") as error:
        Prompts((f"a cat{character}",), PROMPTS.overwrite)
    str(error.value).encode("utf-8")
