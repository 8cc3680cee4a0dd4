"""Files that are complete or not there at all, text whatever wrote it, and downloads with their hash in their name."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

MARKS = {  # byte order mark -> encoding, the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A new name beside `path` to write to, which takes the place of `path` at the end; folders are made.

    When the context raises, `path` stays as it was and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
        move_into_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def move_into_place(partial: Path, path: Path) -> None:
    """The last step of writing: what is complete at `partial`, a file or a folder, is at `path` from here on."""
    os.replace(partial, path)


def hash_prefix(path: Path) -> str:
    """The start of a file's sha256, which torch hub's files have behind the last dash of their name.

    Raises IndexError for a name without one.
    """
    return path.stem.rsplit("-", 1)[1]


def read_checked(path: Path) -> bytes:
    """A file's content. Raises ValueError when it has not the hash in its name."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(hash_prefix(path)):
        raise ValueError(
            f"{path} is damaged (sha256 {digest[:8]}…, not the one in its name): delete it, fetch it again"
        )
    return content


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as editors on Windows write them.

    Line ends become newlines. Raises ValueError, which names the file, for another encoding or what is no text.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: this is not text in UTF-8 ({error}); save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path}: this is no text, or UTF-16 without a byte order mark; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
