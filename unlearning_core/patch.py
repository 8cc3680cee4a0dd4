"""The result: weight deltas and how they were made, in one safetensors file that stock LoRA loaders open."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from . import typed
from .changes import TYPES, Shape, change_shapes, check_finite, check_fit, weight_changes
from .digests import content, digest
from .files import write_atomically
from .fingerprint import Fingerprint

SOME_ROWS = 4  # of each weight
SHOWN = 200  # characters of what a patch forgets
KEY = "unlearning"  # of the record in the file's __metadata__
SEAL = "unlearning_sha256"  # there too, since format 2: `_seal`
FORMAT = 3  # of record and tensors; the number grows when files are to be read in another way


class NewerFormat(ValueError):
    """The record is of a format that this version does not know yet."""


@dataclass(frozen=True)
class Record:
    """How a patch was made."""

    method: str  # its name in the registry
    options: dict[str, float]
    forget: list[str]
    overwrite: list[str]
    retain: list[str]
    settings: dict[str, Any]
    base: Fingerprint
    versions: dict[str, str]
    wordings: dict[str, list[str]] | None = None  # other ones that were found, of each forget prompt; since format 3
    stopped: int | None = None  # after so many of the steps, where training was ended early; since format 3
    integrity: dict[str, Any] | None = None  # the metric's summary, once measured
    format: int = FORMAT  # of the file; files from before the number are of format 1 and lack it

    @classmethod
    def read(cls, path: Path) -> Record:
        """From a patch file's header alone.

        Raises ValueError, which names the file, when it cannot be read, is no safetensors file, is cut short, was not
        made by this project, or has a record that this version cannot read.
        """
        with _opened(path) as file:
            return cls._of(file.metadata() or {}, path)

    @classmethod
    def _of(cls, metadata: Mapping[str, str], path: Path) -> Record:
        """Of a file's metadata. Raises ValueError as `read`."""
        if KEY not in metadata:
            raise ValueError(
                f"patch file {path.name}: it holds no unlearning record; for other LoRA files use the LoRA loader"
            )
        try:
            return cls.from_json(metadata[KEY])
        except NewerFormat as error:
            raise ValueError(f"patch file {path.name}: {error}") from error
        except ValueError as error:
            raise ValueError(
                f"patch file {path.name}: its record was made by another version of this pack, or damaged ({error}); "
                "copy or make the file again"
            ) from error

    @property
    def forgotten(self) -> str:
        """The forget prompts on one line, at most SHOWN characters."""
        return _on_one_line(", ".join(self.forget))

    @property
    def title(self) -> str:
        """What the patch is, in a few words."""
        return _on_one_line(f"{self.method} forgets {self.forgotten}")

    def to_metadata(self) -> dict[str, str]:
        """The header: this record as JSON, and the modelspec keys that other tools show."""
        return {
            KEY: json.dumps(asdict(self), sort_keys=True, allow_nan=False),
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": self.title,
            "modelspec.description": f"Unlearning patch: {self.method}, forgets {', '.join(self.forget)}",
            "modelspec.implementation": "comfyui-unlearning",
        }

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Raises NewerFormat for a format above FORMAT, ValueError for what is no record."""
        fields = typed.parse(text)
        if not isinstance(fields, dict):
            raise ValueError("it is no dictionary")
        number = fields.setdefault("format", 1)
        if type(number) is not int or number < 1:
            raise ValueError("its format is no number above 0")
        if number > FORMAT:
            raise NewerFormat(f"it has format {number}, this version reads up to {FORMAT}; update the pack")
        record = typed.read(cls, fields)
        record.base.check()
        return record


@dataclass(frozen=True)
class UnlearningPatch:
    """CPU tensors under LoRA-file keys: `.diff`, `.diff_b`, and the pairs of `low_rank_tensors`."""

    tensors: dict[str, Tensor]
    record: Record

    def save(self, path: Path) -> None:
        """Writes the file in one move, the same bytes for the same patch. Raises ValueError as `check_change`."""
        self.check_change()
        metadata = replace(self.record, format=FORMAT).to_metadata()
        metadata[SEAL] = _seal(metadata[KEY], self.tensors)
        with write_atomically(path) as partial:
            partial.write_bytes(_sorted_header(save(self.tensors, metadata)))

    @classmethod
    def load(cls, path: Path) -> UnlearningPatch:
        """Reads a file that `save` wrote.

        Raises ValueError as `Record.read`, and when its tensors are not those of a patch, or not as they were written.
        """
        with _opened(path) as file:
            metadata = file.metadata() or {}
            record = Record._of(metadata, path)
            try:
                tensors = _read_tensors(file)
                change_shapes(tensors)
                check_finite(tensors)
                _check_seal(metadata, record, tensors)
            except ValueError as error:
                raise ValueError(f"patch file {path.name}: {error}; copy or make the file again") from error
        return cls(tensors, record)

    def changes(self, rows: int | None = None) -> dict[str, Tensor]:
        """As `weight_changes` of its tensors."""
        return weight_changes(self.tensors, rows)

    def check_fit(self, weights: Mapping[str, Shape]) -> None:
        """Raises ValueError when a model with weights of these shapes, by patch name, cannot have the patch."""
        try:
            check_fit(change_shapes(self.tensors), weights)
        except ValueError as error:
            raise ValueError(
                f"patch for {self.record.forgotten}: {error}; load the base model that the patch was made for"
            ) from error

    def check_change(self) -> None:
        """Raises ValueError when a tensor holds NaN or infinity, or the patch changes nothing."""
        try:
            check_finite(self.tensors)
        except ValueError as error:
            raise ValueError(
                f"patch: {error}; train with a lower learning rate, and without infinite weights in prompts"
            ) from error
        # Some rows answer for nearly every patch, without multiplying out all factors.
        if not any(change.any() for rows in (SOME_ROWS, None) for change in self.changes(rows).values()):
            raise ValueError("patch: it changes nothing; train with more steps or a higher learning rate")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the tensors: the same change has the same digest."""
        sha = sha256()
        for key in sorted(self.tensors):
            sha.update(key.encode())
            sha.update(content(self.tensors[key]))
        return sha.hexdigest()[:16]

    def with_integrity(self, summary: dict[str, Any]) -> UnlearningPatch:
        """The same patch with the metric's summary in its record."""
        return UnlearningPatch(self.tensors, replace(self.record, integrity=summary))

    def check_base(self, model: Fingerprint) -> None:
        """Raises ValueError when this is not the base that it was trained on."""
        difference = self.record.base.difference(model)
        if difference:
            raise ValueError(
                f"patch for {self.record.forgotten}: it was trained on another base model than this one "
                f"({difference}); load the base that it was made for, or switch the base check off"
            )


def _on_one_line(text: str) -> str:
    """At most SHOWN characters of a text, all of which can be shown."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"


def _seal(record: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 over a record's text and the tensors as they are stored, by which a file that was changed is known."""
    return sha256(f"{record}\n{digest(tensors)}".encode()).hexdigest()


def _check_seal(metadata: Mapping[str, str], record: Record, tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError when record and tensors are not as they were written."""
    if record.format == 1 and SEAL not in metadata:
        return
    if metadata.get(SEAL) != _seal(metadata[KEY], tensors):
        raise ValueError("its content is not what was written")


def _read_tensors(file: Any) -> dict[str, Tensor]:
    """All tensors of an open file. Raises ValueError for a type that no change has."""
    tensors = {}
    for key in file.keys():  # noqa: SIM118
        kind = file.get_slice(key).get_dtype()
        if kind not in TYPES:
            raise ValueError(f"{key[:SHOWN]!r} has the type {kind}, which no change has")
        tensors[key] = file.get_tensor(key)
    return tensors


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A patch file open for reading. Raises ValueError when it cannot be read, is cut short or no safetensors file."""
    try:
        if not path.is_file():
            raise ValueError(f"patch file {path.name}: {_what_is_there(path)}; choose a patch file")
        with path.open("rb") as file:
            start = file.read(9)
        with safe_open(path, framework="pt") as opened:
            yield opened
    except OSError as error:
        raise ValueError(
            f"patch file {path.name}: it cannot be read ({error.strerror or error}); check its permissions and the disk"
        ) from error
    except SafetensorError as error:
        raise ValueError(f"patch file {path.name}: {_what_is_wrong(start)} ({error})") from error


def _what_is_there(path: Path) -> str:
    """A message for a path that leads to no file."""
    if path.is_symlink() and not path.exists():
        return "this is a link to a file that is gone"
    return "this is a folder, or a device" if path.exists() else "there is no such file"


def _what_is_wrong(start: bytes) -> str:
    """A message for a file that safetensors refused, by its first nine bytes.

    In safetensors these are the length of the header, which may begin as a pickle does, and the header's brace.
    """
    if start.startswith((b"PK\x03\x04", b"\x80")) and not start.endswith(b"{"):
        return "this is a pickle with another name, which can run code when opened; it was not opened"
    return "this is not a safetensors file, or it was cut short; copy or make it again"


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors bytes with the metadata in key order, which the library leaves to chance."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
