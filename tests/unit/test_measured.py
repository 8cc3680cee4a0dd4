"""Which prompts are measured: those of the boxes, or what a patch leads to."""

from __future__ import annotations

from unlearning_core.fingerprint import Fingerprint
from unlearning_core.measured import NAMED, measured_prompts
from unlearning_core.patch import Record
from unlearning_core.prompts import DEFAULT_MEASURED, held_out


def record(forget: list[str], retain: list[str], wordings: dict[str, list[str]] | None = None) -> Record:
    """Of a patch that forgets prompts, overwritten by an elephant."""
    return Record("uce", {}, forget, ["an elephant"], retain, {}, Fingerprint("", ""), {}, wordings)


RECORD = record(["a guitar", "a red lute"], ["a waterfall"], {"a guitar": ["a butterfly"]})


def test_boxes_win() -> None:
    assert measured_prompts(("a cat",), ("a car",), RECORD) == (("a cat",), ("a car",), ())
    assert measured_prompts((), ("a car",), None) == ((), ("a car",), ())
    assert measured_prompts(("a cat",), (), None) == (("a cat",), (), ())


def test_empty_boxes_are_the_patchs_prompts_and_held_out_ones() -> None:
    forget, retain, told = measured_prompts((), (), RECORD)
    assert forget == ("a guitar", "a red lute")
    seen = {"a guitar", "an elephant", "a waterfall", "a butterfly"}
    assert set(DEFAULT_MEASURED) - set(retain) == seen
    assert told[0] == "forget prompts, from the patch: 'a guitar', 'a red lute'"
    assert told[1].startswith("retain prompts, which training did not see: 'a boy on a bicycle', ")


def test_held_out_prompts_lack_what_the_patch_forgets_whatever_is_measured() -> None:
    _, retain, [told] = measured_prompts(("a cat",), (), RECORD, box="other")
    assert retain == held_out(["a cat", "a guitar"], ["an elephant", "a waterfall", "a butterfly"])
    assert told.startswith("other prompts, ")


def test_clashing_lines_are_left_out_and_told() -> None:
    found = measured_prompts((), ("A GUITAR", "a lute", "a car"), RECORD, wordings=["a lute"])
    assert found.retain == ("a car",)
    assert found.told[-1] == "retain prompts: 'A GUITAR', 'a lute' left out, being a forget prompt too"


def test_a_box_of_clashing_lines_alone_stands_for_held_out_prompts() -> None:
    found = measured_prompts((), ("a guitar",), RECORD)
    assert found.retain == measured_prompts((), (), RECORD).retain
    assert found.told[1] == "retain prompts: 'a guitar' left out, being a forget prompt too"
    assert measured_prompts(("a guitar",), ("a guitar",), None).retain == ()


def test_long_lists_are_told_in_part() -> None:
    many = record([f"thing {index}" for index in range(NAMED + 5)], [])
    told = measured_prompts((), ("a car",), many).told[0]
    assert told.endswith(f"'thing {NAMED - 1}' and 5 more")
