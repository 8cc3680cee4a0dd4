"""Files that are complete or not there at all, text whatever wrote it, and downloads with their hash in their name."""

from __future__ import annotations

import codecs
import functools
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

MARKS = {  # byte order mark -> encoding, the longer ones first: UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


# Of what is being written: by whom, or as version 0.1.0 named it. Short, so that the name of the file itself counts.
PARTIAL = re.compile(r"\.(?:(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}|.+\.[0-9a-f]{32})\.partial")
ABANDONED = 7 * 24 * 3600  # seconds without a change, which no write takes
ROOM = 64  # bytes that a partial name may take more than the file's own, and the end of a path
LIMITS = {"PC_NAME_MAX": 255, "PC_PATH_MAX": 4096}  # bytes, where the system does not tell


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A new name beside `path` to write a file or folder to, which takes the place of `path` at the end.

    Folders are made. When the context raises, `path` stays as it was and nothing is left behind; what a process left
    that was killed in here goes with the next write to the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    partial = path.with_name(f".{_machine()}-{os.getpid()}-{uuid4().hex[:8]}.partial")
    try:
        yield partial
        move_into_place(partial, path)
    finally:
        _remove(partial)


def remove_leftovers(folder: Path) -> None:
    """Removes what `write_atomically` had begun in a folder in processes that are gone.

    Of the processes of another machine that shares the folder nothing is known: what it began must be untouched for
    ABANDONED.
    """
    for path in folder.iterdir():
        match = PARTIAL.fullmatch(path.name)
        if match and _is_left(path, match):
            with suppress(OSError):  # of another user, or removed meanwhile
                _remove(path)


def check_writable(path: Path) -> None:
    """Raises ValueError when there cannot be a file or folder `path`.

    Because a name is too long for the file system, holds what no name can, or would be in a file or in a folder that
    is closed to this user.
    """
    check_characters(str(path))
    whole = Path(os.path.abspath(path))
    sizes = {part: len(os.fsencode(part)) for part in whole.parts}
    folder = next(parent for parent in whole.parents if os.path.lexists(parent))
    name_limit, path_limit = (_limit(folder, name) for name in LIMITS)
    longest = max(sizes, key=lambda part: sizes[part])
    if sizes[longest] > name_limit:
        raise ValueError(
            f"{longest[:40]}…: a name of {sizes[longest]} bytes, and the file system takes {name_limit}; "
            f"write one that is shorter by {sizes[longest] - name_limit}"
        )
    if len(os.fsencode(whole)) + ROOM > path_limit:
        raise ValueError(f"{str(path)[:40]}…: too long for a path; write a shorter one, in fewer folders")
    reason = _why_not(folder)
    if reason:
        raise ValueError(f"{path}: cannot be made in {folder}, {reason}; choose another place")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: this is a device; choose another place")


def _why_not(folder: Path) -> str:
    """Why nothing new can be in a folder; empty when it can."""
    if not folder.is_dir():
        return "this is no folder"
    try:
        with TemporaryFile(dir=folder):  # file systems refuse what permissions allow
            return ""
    except OSError as error:
        return f"nothing can be written there ({error.strerror})"


def check_characters(name: str) -> None:
    """Raises ValueError for a path with what no file system keeps in a name."""
    try:
        kept = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half a character
        kept = False
    if not kept:
        raise ValueError(f"{name[:100]!r}: no name for a file; write it in plain characters")


def move_into_place(partial: Path, path: Path) -> None:
    """The last step of writing: what is complete at `partial`, a file or a folder, is at `path` from here on."""
    os.replace(partial, path)


@functools.cache
def _machine() -> str:
    """8 hexadecimal digits that are the same where a process number means the same process."""
    parts = [platform.node()]
    with suppress(OSError):  # on Linux alone; containers share a host's name, and number their processes anew
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _is_left(path: Path, match: re.Match[str]) -> bool:
    """Whether nobody writes to a partial file or folder any more."""
    # A signal 0 asks on POSIX alone. A number may be another process's by now, so age counts on this machine too.
    if os.name == "posix" and match["machine"] == _machine() and not _runs(int(match["pid"])):
        return True
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED
    except FileNotFoundError:  # complete meanwhile
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # another user's
    return True


def _remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _limit(folder: Path, name: str) -> int:
    try:
        limit = os.pathconf(folder, name)
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not tell
        return LIMITS[name]
    return limit if limit > 0 else LIMITS[name]


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
