"""Text files from any editor are read, or refused by name; what a killed process left goes; names fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unlearning_core.commands.shared import PromptFile, read_prompts
from unlearning_core.files import ABANDONED, check_writable, read_text, write_atomically

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


WRITER = """
import sys, time
from pathlib import Path
from unlearning_core.files import write_atomically
with write_atomically(Path(sys.argv[1])) as partial:
    if sys.argv[2] == "folder":
        partial.mkdir()
        (partial / "half").write_text("half")
    else:
        partial.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def begin(path: Path, kind: str) -> subprocess.Popen[str]:
    """A process that is in the middle of writing a file or folder."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, path, kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "writing\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def write(path: Path) -> None:
    with write_atomically(path) as partial:
        partial.write_text("whole")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_next_write_removes_what_a_killed_process_left(tmp_path: Path, kind: str) -> None:
    killed, running = (begin(tmp_path / "target", kind) for _ in range(2))
    try:
        assert len(list(tmp_path.iterdir())) == 2
        end(killed)
        write(tmp_path / "other")
        [left] = (path for path in tmp_path.iterdir() if path.name != "other")
        assert f"-{running.pid}-" in left.name
    finally:
        end(killed)
        end(running)
    write(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("name", [".0123abcd-1-0123abcd.partial", f".patch.safetensors.{'0f' * 16}.partial"])
def test_what_other_machines_and_versions_left_goes_when_it_is_old(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("half")
    write(tmp_path / "target")
    assert (tmp_path / name).exists()
    old = (tmp_path / "target").stat().st_mtime - ABANDONED - 60
    os.utime(tmp_path / name, (old, old))
    write(tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("name", [".partial", "a.partial", ".mine.partial", ".0123abcd-1-0123abcd.partial.safetensors"])
def test_files_of_others_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    os.utime(tmp_path / name, (0, 0))
    write(tmp_path / "target")
    assert (tmp_path / name).read_text() == "mine"


NAMES = st.text(st.sampled_from("a é漢😀.\0\ud800\udc80"), min_size=1, max_size=8).filter(lambda name: name.strip("."))


@given(names=st.lists(st.tuples(NAMES, st.integers(1, 130)), min_size=1, max_size=3))
@example([("x", 255)])
@example([("x", 256)])
@example([("x" * 200, 1)] * 30)
@settings(max_examples=150, deadline=None)
def test_what_can_be_written_is_known_before(
    tmp_path_factory: pytest.TempPathFactory, names: list[tuple[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("names").joinpath(*(name * times for name, times in names))
    try:
        check_writable(path)
    except ValueError as error:
        assert "write " in str(error) and len(str(error)) < 1000
        with pytest.raises((OSError, ValueError)):
            write(path)
    else:
        write(path)
        assert path.read_text() == "whole"


@pytest.mark.parametrize("make", [lambda path: path.write_text(""), lambda path: path.symlink_to("gone")])
def test_no_folder_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "file")
    with pytest.raises(ValueError, match=r"file, this is no folder; choose another place"):
        check_writable(tmp_path / "file" / "folder" / "x")


def test_closed_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("unlearning_core.files.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"nothing can be written there \(Permission denied\)"):
        check_writable(tmp_path / "x")


@pytest.mark.parametrize("path", ["/proc/x", "/dev/null"])
def test_places_for_no_file_are_named(path: str) -> None:
    with pytest.raises(ValueError, match=r"(nothing can be written there .*|this is a device); choose another place"):
        check_writable(Path(path))
