"""The nodes in the languages of ComfyUI's front end: complete, and nothing that the schemas have not."""

from __future__ import annotations

from typing import Any

import pytest
import translations
from comfyui import Server


@pytest.fixture(scope="module")
def english(server: Server) -> dict[str, translations.Texts]:
    return translations.english(server.node_info())


def test_english_is_the_generated_one(english: dict[str, translations.Texts]) -> None:
    found = translations.problems(english, translations.read(translations.ENGLISH))
    assert not found, "\n".join(["run `python scripts/translations.py`:", *found])
    for path, text in translations.written(english).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `python scripts/translations.py`"


@pytest.mark.parametrize("language", translations.languages())
def test_language_has_every_text_and_no_other(language: str, english: dict[str, translations.Texts]) -> None:
    found = translations.problems(english, translations.read(language))
    assert not found, "\n".join([f"write these texts in locales/{language}:", *found])


@pytest.mark.parametrize("language", [translations.ENGLISH, *translations.languages()])
def test_comfyui_serves_a_language(server: Server, language: str) -> None:
    served: dict[str, Any] = server.translations()[language]
    own = translations.read(language)
    assert served["nodeDefs"].items() >= own["nodeDefs"].items()
    for group, texts in own["main"].items():
        assert served[group].items() >= texts.items()
