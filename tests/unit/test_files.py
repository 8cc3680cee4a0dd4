"""Text files from any editor are read, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearning_core.commands.evaluate import PromptFile, read_prompts
from unlearning_core.files import read_text

READ = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff"), min_size=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("text") / "prompts.txt"


@given(rows=st.lists(TEXT), encoding=st.sampled_from(READ), newline=st.sampled_from(["\n", "\r\n", "\r"]))
def test_text_comes_back_whatever_wrote_it(file: Path, rows: list[str], encoding: str, newline: str) -> None:
    file.write_bytes(newline.join(rows).encode(encoding))
    assert read_text(file) == "\n".join(rows)


@given(content=st.binary())
@settings(max_examples=300)
def test_any_bytes_are_text_or_refused_by_name(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        text = read_text(file)
    except ValueError as error:
        assert str(error).startswith(str(file)) and "save it as UTF-8" in str(error)
    else:
        assert "\0" not in text and "\r" not in text


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "utf-32-le", "shift-jis"])
def test_other_encodings_are_refused(file: Path, encoding: str) -> None:
    file.write_bytes("[retain]\r\na café\r\n".replace("é", "ア" if encoding == "shift-jis" else "é").encode(encoding))
    with pytest.raises(ValueError, match=rf"{file}: this is .*; save it as UTF-8"):
        read_text(file)


@pytest.mark.parametrize("encoding", READ)
def test_headings_are_found_behind_a_mark(file: Path, encoding: str) -> None:
    file.write_bytes("[forget]\r\na cat face\r\n[retain]\r\na frog\r\n".encode(encoding))
    assert read_prompts(file) == PromptFile(("a frog",), ("a cat face",))
