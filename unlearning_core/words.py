"""English words in one form: singular for plural, American for British spelling."""

from __future__ import annotations

import re
import unicodedata

# Plural ending -> singular endings that it may come from; every one that fits is a candidate.
PLURALS = (
    ("s", ("",)),
    ("es", ("", "is")),
    ("ses", ("",)),  # gasses
    ("zes", ("",)),  # quizzes
    ("ies", ("y",)),
    ("ves", ("f", "fe")),
    ("men", ("man",)),
    ("people", ("person",)),
    ("persons", ("person",)),
    ("children", ("child",)),
    ("brethren", ("brother",)),
    ("oxen", ("ox",)),
    ("mice", ("mouse",)),
    ("lice", ("louse",)),
    ("dice", ("die",)),
    ("geese", ("goose",)),
    ("teeth", ("tooth",)),
    ("feet", ("foot",)),
    ("pence", ("penny",)),
    ("staves", ("staff",)),
    ("ices", ("ex", "ix")),
    ("i", ("us", "o")),
    ("a", ("um", "on")),
    ("ae", ("a",)),
    ("mata", ("ma",)),
    ("eaux", ("eau",)),
    ("im", ("",)),  # seraphim
)
SINGULARS = re.compile(r"(?:ss|us|is)$")  # a final s that is no plural's

SPELLINGS = (  # British -> American, wherever it stands; both sides of a comparison go through it
    (r"our", "or"),
    (r"([tb])re$", r"\1er"),
    (r"([iy])z(?=e|ing|ation)", r"\1s"),  # the other way: both spellings are British
    (r"ence$", "ense"),
    (r"ogue$", "og"),
    (r"mme$", "m"),
    (r"l+", "l"),
    (r"ae(?=o|s|di)", "e"),
    (r"grey", "gray"),
    (r"ewelery", "ewelry"),
    (r"plough", "plow"),
    (r"mould", "mold"),
    (r"moustache", "mustache"),
    (r"pyjama", "pajama"),
    (r"aeroplane", "airplane"),
    (r"eroplane", "airplane"),
    (r"aluminium", "aluminum"),
    (r"doughnut", "donut"),
    (r"yoghurt", "yogurt"),
    (r"^tyre", "tire"),
    (r"^kerb", "curb"),
    (r"^cosy", "cozy"),
    (r"^whisky$", "whiskey"),
    (r"^disc$", "disk"),
    (r"^storey$", "story"),
)


def forms(word: str) -> set[str]:
    """What a word may be the plural or another spelling of, itself included: two words name one thing when these meet.

    Endings decide, so that a word need not be in a list; accents and case do not count.
    """
    plain = unicodedata.normalize("NFKD", word.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return {american(form) for form in (plain, *_singulars(plain))}


def american(word: str) -> str:
    """One spelling for all; not always a real word."""
    for british, ours in SPELLINGS:
        word = re.sub(british, ours, word)
    return word


def _singulars(word: str) -> list[str]:
    return [
        word.removesuffix(ending) + singular
        for ending, singulars in PLURALS
        if word.endswith(ending) and not (ending == "s" and SINGULARS.search(word))
        for singular in singulars
        if len(word) - len(ending) + len(singular) > 1
    ]
