"""Files that are complete or not there at all, and downloads that carry their hash in their name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


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
