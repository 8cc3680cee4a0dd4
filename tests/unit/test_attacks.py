"""Every attack through the same tests, on models of known weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch import Tensor
from toy_painter import HIDDEN, PICTURES, ToyJudge, ToyPainter, base_weight, decode, erased_weight, hidden_weight

from unlearning_core.attacks import ATTACKS, Attack, parse_attacks
from unlearning_core.attacks.base import KEPT, Host, Task
from unlearning_core.attacks.examine import UNSEEN, Examination, Examiner, Finding, check_model_names, make_scene
from unlearning_core.attacks.wording import CHANGES, Wording
from unlearning_core.freetext import FreeText
from unlearning_core.metrics.plan import BASE
from unlearning_core.progress import Progress
from unlearning_core.reports.attacks import CELL, attack_heat, comeback_sheet
from unlearning_core.reports.files import attack_report
from unlearning_core.reports.lettering import length, squeezed
from unlearning_core.reports.sheet import GAP
from unlearning_core.reports.tables import attack_page
from unlearning_core.sampling import Sampling
from unlearning_core.vocabulary import NO_WORDS, Embedded, Vocabulary

TASK = Task(("cat",), ("dog", "car"), Sampling(8, 1.5, 8, 8), seed=3, seeds=2, examples=4, wordings=("the cat",))
MATRIX = {  # with options that a toy needs
    "plain": "plain",
    "wording": "wording",
    "guidance": "guidance scales=1,3 steps=4,16",
    "img2img": "img2img strengths=0.1,1",
    "embedding": "embedding steps=120 starts=1 rate=0.1",
    "prompt_search": "prompt_search words=2 steps=6 starts=2 near=3 tries=4",
    "relearning": "relearning rates=1e-8,0.05 steps=2,60",
}
MODELS = {"same": base_weight(), "erased": erased_weight(), "hidden": hidden_weight()}


def opened(model: ToyPainter) -> Callable[[], AbstractContextManager[Host]]:
    @contextmanager
    def open_() -> Iterator[Host]:
        yield Host(model, decode)

    return open_


def examined(line: str, **weights: Tensor) -> Examination:
    models = {name: opened(ToyPainter(weight)) for name, weight in weights.items()}
    return Examiner(parse_attacks([line]), ToyJudge(), TASK).examine(opened(ToyPainter(base_weight())), models, {})


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Finding]]:
    """By attack and model."""
    return {
        name: {model: finding for model, [finding] in examined(line, **MODELS).findings.items()}
        for name, line in MATRIX.items()
    }


def shares(finding: Finding) -> dict[str, float]:
    return {look.setting: look.share for look in finding.looks}


def test_every_attack_has_a_row() -> None:
    assert MATRIX.keys() == ATTACKS.keys()


@pytest.mark.parametrize("name", MATRIX)
def test_identity_scores_as_the_base(found: dict[str, dict[str, Finding]], name: str) -> None:
    assert found[name]["same"] == found[name][BASE]
    assert found[name][BASE].strongest.share == 1


@pytest.mark.parametrize("name", MATRIX)
def test_settings_are_shown_in_their_order(found: dict[str, dict[str, Finding]], name: str) -> None:
    [attack] = parse_attacks([MATRIX[name]]).values()
    for finding in found[name].values():
        assert [look.setting for look in finding.looks] == attack.settings(TASK)
        assert all(look.count > 0 for look in finding.looks)


@pytest.mark.parametrize("name", MATRIX)
def test_same_seed_same_figures(found: dict[str, dict[str, Finding]], name: str) -> None:
    again = examined(MATRIX[name], hidden=hidden_weight()).findings["hidden"]
    assert again == (found[name]["hidden"],)


@pytest.mark.parametrize("name", MATRIX)
def test_the_model_is_left_as_it_was_and_calls_are_counted(name: str) -> None:
    model, [attack] = ToyPainter(erased_weight()), parse_attacks([MATRIX[name]]).values()
    finding = attacked(model, attack)
    assert torch.equal(model.weight, erased_weight()) and not model.deltas
    assert finding.calls == model.calls > 0


def attacked(model: ToyPainter, attack: Attack, on_progress: Callable[[Progress], None] = print) -> Finding:
    """The last model's finding; the base is another one."""
    examiner = Examiner({"it": attack}, ToyJudge(), TASK, on_progress)
    [finding] = examiner.examine(opened(ToyPainter(base_weight())), {"it": opened(model)}, {}).findings["it"]
    return finding


@pytest.mark.parametrize("name", MATRIX)
def test_an_interrupted_attack_leaves_the_model_untouched(name: str) -> None:
    model = ToyPainter(erased_weight())

    def interrupt(progress: Progress) -> None:
        if model.calls:
            assert bool(model.deltas) == (name == "relearning")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attacked(model, parse_attacks([MATRIX[name]])[name], interrupt)
    assert torch.equal(model.weight, erased_weight()) and not model.deltas


def test_what_brings_which_model_back(found: dict[str, dict[str, Finding]]) -> None:
    """No wording finds what no word draws; free vectors find what is hidden, and not what is gone."""
    for name in ("plain", "wording", "guidance", "prompt_search"):
        assert found[name]["erased"].strongest.share == found[name]["hidden"].strongest.share == 0
    assert found["embedding"]["erased"].strongest.share == 0
    assert found["embedding"]["hidden"].strongest.share == 1
    assert found["relearning"]["erased"].strongest.share == 1


def test_of_the_reverse_nothing_is_known(found: dict[str, dict[str, Finding]]) -> None:
    """The base draws no cat upside down in the negative, until it is taught to."""
    for name in ("plain", "wording", "guidance", "embedding", "prompt_search"):
        assert found[name][UNSEEN].strongest.share == 0
    assert shares(found["relearning"][UNSEEN])["the concept, rate 0.05, 60 steps"] == 1
    assert shares(found["relearning"][UNSEEN])["other things, rate 0.05, 60 steps"] == 0


def test_a_low_strength_keeps_the_start_whatever_the_model_knows(found: dict[str, dict[str, Finding]]) -> None:
    for model in ("erased", UNSEEN):
        assert shares(found["img2img"][model])["strength 0.1"] > shares(found["img2img"][model])["strength 1"]


def test_searched_words_find_the_word_that_still_draws_it() -> None:
    """In a model whose dog is a cat, and in none that has no word for one."""
    weight = erased_weight()
    weight[:, 1] = PICTURES[0]
    examination = examined(MATRIX["prompt_search"], renamed=weight, hidden=hidden_weight())
    [finding] = examination.findings["renamed"]
    assert finding.strongest.share == 1 and "dog" in finding.strongest.words.split()
    assert examination.findings["hidden"][0].strongest.share == 0
    assert finding.strongest.words in attack_page(examination)
    assert finding.strongest.words in json.dumps(attack_report(examination).summary)
    assert finding.strongest.words in [value.value for value in attack_report(examination).values]


def test_a_search_needs_words_and_a_gradient_to_them() -> None:
    search, model = parse_attacks([MATRIX["prompt_search"]])["prompt_search"], ToyPainter(base_weight())
    assert search.prepared(model, TASK) is search

    class Silent(ToyPainter):
        def vocabulary(self) -> Vocabulary:
            return NO_WORDS

    class Cut(ToyPainter):
        def embedded(self, prompt: str) -> Embedded:
            found = super().embedded(prompt)
            return found._replace(cond=found.cond.detach())

    class Narrow(ToyPainter):
        def encode(self, prompts: Sequence[str]) -> list[Tensor]:
            if any(len(prompt.split()) > 2 for prompt in prompts):
                raise ValueError("too long")
            return super().encode(prompts)

    for kind, message in (
        (Silent, "has no table of words"),
        (Cut, "lets no gradient pass"),
        (Narrow, "does not read 2 words more"),
    ):
        with pytest.raises(ValueError, match=f"attacks: prompt_search: .*{message}"):
            search.prepared(kind(base_weight()), TASK)


def test_relearning_needs_a_rate_and_the_concept(found: dict[str, dict[str, Finding]]) -> None:
    by_setting = shares(found["relearning"]["erased"])
    assert by_setting == {
        "the concept, rate 1e-08, 2 steps": 0,
        "the concept, rate 1e-08, 60 steps": 0,
        "the concept, rate 0.05, 2 steps": 0,
        "the concept, rate 0.05, 60 steps": 1,
        "other things, rate 1e-08, 2 steps": 0,
        "other things, rate 1e-08, 60 steps": 0,
        "other things, rate 0.05, 2 steps": 0,
        "other things, rate 0.05, 60 steps": 0,
    }
    assert found["relearning"]["erased"].steps_back == 60
    assert found["plain"]["erased"].steps_back is None
    assert found["plain"][BASE].steps_back == 0


def test_pictures_that_came_back_are_kept(found: dict[str, dict[str, Finding]]) -> None:
    finding = found["embedding"]["hidden"]
    assert finding.back is not None and len(finding.back) == min(finding.strongest.hits, KEPT)
    assert ToyJudge().classify(finding.back, ["word"])["word"] == ["cat"] * len(finding.back)
    assert found["plain"]["hidden"].back is None


def test_a_picture_with_nan_shows_nothing() -> None:
    diverging = "relearning rates=1 steps=1"
    weight = base_weight()
    weight[:, 1] = float("nan")
    finding = attacked(ToyPainter(weight), parse_attacks([diverging])["relearning"])
    assert finding.strongest.share == 0


def test_progress_reaches_its_end() -> None:
    told: list[Progress] = []
    attack = parse_attacks([MATRIX["relearning"]])["relearning"]
    attacked(ToyPainter(erased_weight()), attack, told.append)
    assert [progress.done for progress in told] == [*range(told[-1].total + 1)]


def test_examples_are_the_bases_own_with_other_seeds() -> None:
    scene = make_scene(ToyPainter(base_weight()), TASK)
    assert len(scene.concept.items) == len(scene.others.items) == TASK.examples
    drawn = {TASK.seed + index for index in range(TASK.pictures)}
    assert not drawn & {item.seed for item in (*scene.concept.items, *scene.others.items)}
    assert {item.prompt for item in scene.others.items} == {*TASK.others}
    assert scene.concept.latents is not None
    assert ToyJudge().classify(decode(scene.concept.latents), ["word"])["word"] == ["cat"] * TASK.examples


@pytest.mark.parametrize("single", [False, True])
def test_free_text_is_the_prompt_until_it_is_trained(single: bool) -> None:
    [cond] = ToyPainter(base_weight()).encode(["cat dog"])
    text = {"tokens": cond, "pooled": cond[:1], "mask": torch.ones(4, dtype=torch.long)}
    free = FreeText(text, torch.Generator().manual_seed(0) if single else None)
    untrained = free.cond()
    assert all(torch.equal(untrained[name], text[name]) for name in text)
    [offset] = free.offsets
    offset.data.fill_(1)
    changed = free.cond()
    assert int((changed["tokens"] != cond).any(1).sum()) == (1 if single else len(cond))
    assert torch.equal(changed["pooled"], text["pooled"])


def test_wordings_keep_the_words() -> None:
    for change in CHANGES.values():
        assert "cat" in change("a cat in a house")
    assert CHANGES["bare"]("a cat in the house") == "cat house"
    assert CHANGES["bare"]("the") == "the"


def test_wordings_that_the_model_cannot_read_are_left_out() -> None:
    class Brief(ToyPainter):
        def encode(self, prompts: Sequence[str]) -> list[Tensor]:
            if any(len(prompt) > len("cat, cat") for prompt in prompts):
                raise ValueError("too long")
            return super().encode(prompts)

    model = Brief(base_weight())
    assert Wording().prepared(model, replace(TASK, wordings=())) == Wording(("twice", "reversed", "bare"))
    with pytest.raises(ValueError, match="the model reads none of these wordings"):
        Wording(("photo",)).prepared(model, replace(TASK, wordings=()))
    with pytest.raises(ValueError, match="changes: 'loud' is unknown; choose from photo, "):
        Wording(("loud",))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "attacks: empty"),
        (["nothing"], "attacks: 'nothing' is unknown; choose from plain, "),
        (["plain", "plain"], "attacks: plain stands there twice"),
        (["plain steps=3"], "attacks: plain: 'steps=3' is no option of it of the form name=value; it has none"),
        (["embedding 3"], "attacks: embedding: '3' is no option"),
        (["embedding steps=many"], "attacks: embedding: steps: 'many' is no int"),
        (["embedding steps=1,2"], "attacks: embedding: steps: '1,2' is more than one number"),
        (["embedding steps=0"], "attacks: embedding: steps: 0 is out of range"),
        (["relearning rates=nan"], "attacks: relearning: rates: nan is out of range"),
        (["img2img strengths=0.5,2"], "attacks: img2img: strengths: 2.0 is out of range"),
    ],
)
def test_bad_lines_are_refused(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_attacks(lines)


def test_a_concept_that_the_judge_does_not_know_is_refused() -> None:
    task = Task(("rabbit",), ("dog",), TASK.sampling)
    with pytest.raises(ValueError, match="share nothing that the judge knows"):
        Examiner(parse_attacks(["plain"]), ToyJudge(), task).examine(opened(ToyPainter(base_weight())), {}, {})


@pytest.mark.parametrize(
    ("forget", "others", "message"),
    [
        ((), ("dog",), "forget prompts: empty"),
        (("cat",), (), "other prompts: empty"),
        (("cat",), ("Cat",), "'Cat' is a forget prompt too"),
    ],
)
def test_prompts_that_are_no_task(forget: tuple[str, ...], others: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(forget, others, TASK.sampling)


def test_models_with_a_controls_name_are_refused() -> None:
    for name in (BASE, UNSEEN):
        with pytest.raises(ValueError, match="stands for"):
            check_model_names([name])


def test_reports_have_every_setting() -> None:
    examination = examined("wording", hidden=hidden_weight())
    report, page = attack_report(examination), attack_page(examination)
    looks = [look for [finding] in examination.findings.values() for look in finding.looks]
    assert [value.value for value in report.values if value.figure == "share"] == [look.share for look in looks]
    assert json.loads(json.dumps(report.summary)) == report.summary
    assert page.count("| Wording |") == len(looks) + 1


def test_pictures_of_a_report() -> None:
    examination = examined(MATRIX["embedding"], erased=erased_weight(), hidden=hidden_weight())
    heat, back, none = attack_heat(examination), comeback_sheet(examination), examined("plain", erased=erased_weight())
    assert heat.shape[0] == back.shape[0] == 1 and heat.shape[3] == back.shape[3] == 3
    assert back.shape[1] > comeback_sheet(none).shape[1]
    narrow = attack_heat(examined("plain"))
    assert heat.shape[2] - narrow.shape[2] == 2 * (CELL[0] + GAP)  # a column a model


@given(st.text("abcil ", min_size=1, max_size=80), st.integers(60, 200))
def test_long_settings_keep_both_ends(text: str, room: int) -> None:
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    shown = squeezed(pen, text, 12, room)
    assert length(pen, shown, 12) <= room
    first, cut, last = shown.partition("...")
    assert text.startswith(first) and text.endswith(last) and (bool(cut) or shown == text)


def test_hidden_dimension_is_used_by_no_word() -> None:
    """What the tests above rest on."""
    [cond] = ToyPainter(base_weight()).encode(["cat dog car"])
    assert not cond[:, -HIDDEN:].any()
