"""Which retain prompts the default set leaves out: those whose subject a forget prompt names in any form."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from unlearning_core import prompts
from unlearning_core.prompts import DEFAULT_RETAIN, default_retain
from unlearning_core.words import forms

ROOTS = ["grib", "tofel", "bramp", "nurt", "zalk", "plimon"]  # no words: endings alone decide
PLURALS = [
    ("{}", "{}s"),
    ("{}y", "{}ies"),
    ("{}ch", "{}ches"),
    ("{}sh", "{}shes"),
    ("{}x", "{}xes"),
    ("{}ss", "{}sses"),
    ("{}o", "{}oes"),
    ("{}e", "{}es"),
    ("{}f", "{}ves"),
    ("{}fe", "{}ves"),
    ("{}man", "{}men"),
    ("{}child", "{}children"),
    ("{}mouse", "{}mice"),
    ("{}foot", "{}feet"),
    ("{}us", "{}i"),
    ("{}um", "{}a"),
    ("{}ix", "{}ices"),
    ("{}eau", "{}eaux"),
]
SPELLINGS = [("{}our", "{}or"), ("{}tre", "{}ter"), ("{}ise", "{}ize"), ("{}lled", "{}led"), ("{}ence", "{}ense")]
KNOWN = """woman women, man men, person people, city cities, beach beaches, bus buses, watercolour watercolors,
watercolour water-colour, watercolor watercolours, mouse mice, child children, leaf leaves, gray grey, knife knives,
wolf wolves, goose geese, tooth teeth, ox oxen, cactus cacti, quiz quizzes, glass glasses, horse horses, house houses,
tree trees, potato potatoes, photo photos, tie ties, rose roses, oasis oases, theatre theaters, jewellery jewelry,
colour colors, harbour harbors, plough plows, dog DOG's, café cafes, matrix matrices, tableau tableaux, fish fishes,
policewoman policewomen, grandchild grandchildren, gryphon gryphons, centre centers, movie movies, shoe shoes"""
APART = """man woman, cat car, dog frog, house horse, bus bush, person personality, glass grass, bird beard, tree
street, flower flour, mouse moss, ship sheep, city cite, table stable, road rod, plate plane, train rain,
lake cake, cup cap"""


def pairs(text: str) -> list[list[str]]:
    return [pair.split(maxsplit=1) for pair in text.replace("\n", " ").split(", ")]


@given(
    root=st.sampled_from(ROOTS),
    endings=st.sampled_from([*PLURALS, *SPELLINGS]),
    swapped=st.booleans(),
    upper=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_either_form_of_an_unseen_word_drops_the_other(
    root: str, endings: tuple[str, str], swapped: bool, upper: bool
) -> None:
    retained, forgotten = (ending.format(root) for ending in (endings[::-1] if swapped else endings))
    assert forms(retained) & forms(forgotten.upper() if upper else forgotten)


def test_known_words_and_near_misses() -> None:
    for one, other in pairs(KNOWN):
        drops = prompts._subjects(f"a picture of the {one}") & prompts._subjects(f"two {other}")
        assert bool(drops) is (one != "photo"), (one, other)
    for one, other in pairs(APART):
        assert not prompts._subjects(one) & prompts._subjects(other), (one, other)


@given(prompt=st.sampled_from(DEFAULT_RETAIN))
@settings(deadline=None)
def test_plurals_of_what_the_set_holds(prompt: str) -> None:
    subject = prompt.split(" with ")[0].split(" in ")[0].split(" on ")[0].split(" at ")[0].split()[-1]
    if subject in prompts.NO_SUBJECT:
        return
    assert prompt not in default_retain([f"many {subject}s and more"])


def test_words_without_a_subject_drop_nothing() -> None:
    assert default_retain(["photos in the style of drawings", "A dog's portraits"]) == tuple(
        prompt for prompt in DEFAULT_RETAIN if "dog" not in prompt
    )
