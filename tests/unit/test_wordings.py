"""Other wordings of forget prompts: which are found, and what is done with them."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import cycle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unlearning_core.bank import bank_sources, make_bank
from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.methods.ovw import Ovw
from unlearning_core.methods.uce import Uce
from unlearning_core.patch import Record, UnlearningPatch
from unlearning_core.progress import Progress
from unlearning_core.prompts import Prompts
from unlearning_core.sampling import Sampling
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.world import CONCEPTS, names, prompt
from unlearning_core.unlearn import unlearn
from unlearning_core.vocabulary import Vocabulary
from unlearning_core.wordings import framed, named_spans, other_endings, other_wordings, reordered, shortened

SAMPLING = Sampling(8, 3.0, 128, 128)
PROMPTS = Prompts(
    ("a cat face", "a cat face in noto style"),
    ("a dog face", "a dog face in noto style"),
    ("a pig face", "a frog in twemoji style", "a car in fluent style"),
)
WORD = st.text("abcdefgh", min_size=2, max_size=6)
PHRASE = st.lists(WORD, min_size=1, max_size=5, unique=True)


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


@pytest.fixture(scope="module")
def found(model: DiffusersModel) -> dict[str, list[str]]:
    return other_wordings(model, PROMPTS, SAMPLING, 12)


def test_wordings_draw_what_the_prompt_draws(model: DiffusersModel, found: dict[str, list[str]]) -> None:
    assert found.keys() == set(PROMPTS.forget)
    for forget, texts in found.items():
        assert 2 <= len(texts) == len(set(texts)) <= 12
        assert not {*texts} & {*PROMPTS.forget, *PROMPTS.overwrite, *PROMPTS.retain}
        x = model.noise([3], 128, 128)
        x0 = dict(zip(["", forget, *texts], predictions(model, x, ["", forget, *texts]), strict=True))
        own = x0[forget] - x0[""]
        for text in texts:
            assert torch.cosine_similarity((x0[text] - x0[""]).flatten(), own.flatten(), dim=0) > 0.5


def predictions(model: DiffusersModel, x: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    sigma = model.sigmas(4)[1:2].expand(len(prompts))
    with torch.no_grad():
        return model.predict_x0(x.expand(len(prompts), -1, -1, -1), sigma, model.encode(prompts))


def test_words_shared_with_retain_prompts_are_not_hit(found: dict[str, list[str]]) -> None:
    """A face alone is a dog's and a pig's too, and another concept's name is none of the cat's."""
    own = {word for name in names("cat face") for word in name.split()} - {"face"}
    others = {word for concept in CONCEPTS if concept != "cat face" for name in names(concept) for word in name.split()}
    for texts in found.values():
        for text in texts:
            assert set(text.split()) & own
            assert not set(text.split()) & (others - {"face"})


@given(PHRASE, st.lists(PHRASE, max_size=3), st.integers(0, 99))
def test_candidates_are_of_the_prompts_own_words(own: list[str], held: list[list[str]], seed: int) -> None:
    forget, texts = " ".join(own), [" ".join(words) for words in held]
    for text in reordered(own, random.Random(seed)):
        assert set(text.split()) == set(own)
    for text in shortened(own):
        assert set(text.split()) <= set(own)
    for text in framed(forget, texts):
        assert forget in text
    known = {word for words in held for word in words}
    for start, end in named_spans(own, [set(words) for words in held]):
        assert 0 <= start < end <= len(own)
        assert set(own) - known <= set(own[start:end])


@given(st.lists(WORD, min_size=2, max_size=6, unique=True), st.lists(WORD, min_size=2, max_size=4, unique=True))
def test_held_subjects_have_each_others_endings(subjects: list[str], endings: list[str]) -> None:
    """But for what says the forget prompt, which has a subject and an ending of held ones."""
    pairs = [f"{subject} in {ending}" for subject, ending in zip(subjects, cycle(endings), strict=False)]
    forget = f"{subjects[0]} in {endings[-1]}"
    retain = tuple(text for text in pairs if text != forget)
    found = other_endings(Prompts((forget,), ("",), retain), len(endings) + 1)
    told = {text.split(" in ")[1] for text in retain}
    every = {text for pair in retain for text in (pair.split()[0], *(f"{pair.split()[0]} in {end}" for end in told))}
    said = {text for text in every if {*forget.split()} - {"in"} <= {*text.split()}}
    assert len(found) == len({*found})
    assert {*found} == every - said - {*retain}
    assert len(other_endings(Prompts((forget,), ("",), retain), 1)) <= len(retain)


@given(st.lists(WORD, min_size=2, max_size=9, unique=True), st.sampled_from(["</w>", "\u2581", "\u0120", ""]))
def test_whole_words_of_any_tokenizer(words: list[str], mark: str) -> None:
    def token(word: str) -> str:
        return word + mark if mark == "</w>" else mark + word

    pieces = {f"##{word}" if not mark else word + "q" for word in words}
    tokens = {text: row for row, text in enumerate([*sorted(pieces), *map(token, words), token("9")])}
    table = torch.eye(len(tokens))
    vocabulary = Vocabulary.of(tokens, table)
    assert vocabulary.words == sorted(words)
    for word in words:
        row = vocabulary.words.index(word)
        assert vocabulary.embeddings[row].argmax() == tokens[token(word)]
        assert word not in vocabulary.nearest(word, 5)
    assert vocabulary.nearest("unknown", 5) == []


def test_half_of_the_batch_sees_them(model: DiffusersModel) -> None:
    settings = Settings(runs=2, run_steps=3, width=64, height=64)
    sources = bank_sources(Ovw(help_weight=0.0).needs, Prompts(("a cat face",)), settings.bank)
    plain = make_bank(model, sources, settings.sampling, lambda: None).forget
    worded = plain.worded(model, {"a cat face": ["a cat", "cat"]})
    seen = [id(cond) for cond in worded.sample(400, torch.Generator().manual_seed(0)).conds]
    shares = [seen.count(id(cond)) / 400 for cond in model.encode(["a cat face", "a cat", "cat"])]
    if sum(shares) == 1:  # the model keeps what it encoded
        assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.08)
    halves = (plain, plain.worded(model, {}), plain.worded(model, {"a cat face": []}))  # none were found
    one, *others = (half.sample(6, torch.Generator().manual_seed(1)) for half in halves)
    assert all(torch.equal(one.x, other.x) for other in others)
    assert torch.equal(
        worded.sample(6, torch.Generator().manual_seed(1)).e_overwrite, one.e_overwrite
    )  # the targets stay


def test_closed_forms_solve_for_them(model: DiffusersModel) -> None:
    """The patch moves the other wording as it moves the prompt, and one without wordings less so."""
    told: list[Progress] = []
    settings = Settings(width=128, height=128, weights=Uce.weights, wordings=6)
    patch = unlearn(model, Uce(), PROMPTS, settings, told.append)
    assert patch.record.wordings is not None
    texts = [text for texts in patch.record.wordings.values() for text in texts]
    assert all(text in "".join(progress.note for progress in told) for text in texts)
    plain = unlearn(model, Uce(), PROMPTS, replace(settings, wordings=0))
    assert plain.record.wordings is None
    assert left(model, patch, texts) < 0.95 * left(model, plain, texts)


def left(model: DiffusersModel, patch: UnlearningPatch, texts: list[str]) -> float:
    """How far the patched model's predictions under these texts are from what the base draws instead."""
    x = model.noise([3], 128, 128)
    [target] = predictions(model, x, ["a dog face"])
    with model.patched(patch):
        return float((predictions(model, x, texts) - target).square().mean())


def test_a_record_keeps_them(model: DiffusersModel) -> None:
    settings = Settings(steps=2, runs=2, run_steps=3, width=64, height=64, wordings=3)
    record = unlearn(model, Ovw(), PROMPTS, settings).record
    assert Record.from_json(record.to_metadata()["unlearning"]) == record
    assert record.forget == list(PROMPTS.forget)
    assert prompt("cat face") in PROMPTS.forget
