"""The result: weight deltas and how they were made, in one safetensors file that stock LoRA loaders open."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .deltas import low_rank_product
from .files import write_atomically
from .fingerprint import Fingerprint

SOME_ROWS = 4  # of each weight
KEY = "unlearning"  # of the record in the file's __metadata__
FORMAT = 1  # of record and tensors; the number grows when files are to be read in another way


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
    integrity: dict[str, Any] | None = None  # the metric's summary, once measured
    format: int = FORMAT  # of the file; files from before the number are of format 1 and lack it

    @classmethod
    def read(cls, path: Path) -> Record:
        """From a patch file's header alone.

        Raises ValueError when it is no safetensors file, is cut short, was not made by this project, or has a record
        that this version cannot read.
        """
        with _opened(path) as file:
            metadata = file.metadata() or {}
        if KEY not in metadata:
            raise ValueError(
                f"patch file {path.name}: it holds no unlearning record; for other LoRA files use the LoRA loader"
            )
        try:
            return cls.from_json(metadata[KEY])
        except NewerFormat as error:
            raise ValueError(f"patch file {path.name}: {error}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"patch file {path.name}: its record was made by another version of this pack, or damaged ({error!r})"
            ) from error

    @property
    def title(self) -> str:
        """What the patch is, in a few words."""
        return f"{self.method} forgets {', '.join(self.forget)}"

    def to_metadata(self) -> dict[str, str]:
        """The header: this record as JSON, and the modelspec keys that other tools show."""
        return {
            KEY: json.dumps(asdict(self), sort_keys=True),
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": self.title[:200],
            "modelspec.description": f"Unlearning patch: {self.method}, forgets {', '.join(self.forget)}",
            "modelspec.implementation": "comfyui-unlearning",
        }

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Raises NewerFormat for a format above FORMAT; ValueError, TypeError or KeyError for what is no record."""
        fields = {"format": 1, **json.loads(text)}
        if fields["format"] > FORMAT:
            raise NewerFormat(f"it has format {fields['format']}, this version reads up to {FORMAT}; update the pack")
        return cls(**{**fields, "base": Fingerprint(**fields["base"])})


@dataclass(frozen=True)
class UnlearningPatch:
    """CPU tensors under LoRA-file keys: `.diff`, `.diff_b`, and the pairs of `low_rank_tensors`."""

    tensors: dict[str, Tensor]
    record: Record

    def save(self, path: Path) -> None:
        """Writes the file in one move, the same bytes for the same patch. Raises ValueError as `check_change`."""
        self.check_change()
        with write_atomically(path) as partial:
            partial.write_bytes(_sorted_header(save(self.tensors, self.record.to_metadata())))

    @classmethod
    def load(cls, path: Path) -> UnlearningPatch:
        """Reads a file that `save` wrote. Raises ValueError as `Record.read`."""
        record = Record.read(path)
        with _opened(path) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return cls(tensors, record)

    def changes(self, rows: int | None = None) -> dict[str, Tensor]:
        """The full change of each weight at strength 1, under its patch name; or `rows` of it, as `some_rows` takes."""

        def part(tensor: Tensor) -> Tensor:
            return tensor if rows is None else some_rows(tensor, rows)

        changes = {}
        for key, tensor in self.tensors.items():
            module = module_of(key)
            if key.endswith(".diff"):
                changes[f"{module}.weight"] = part(tensor)
            elif key.endswith(".diff_b"):
                changes[f"{module}.bias"] = part(tensor)
            elif key.endswith(".lora_up.weight"):
                down, alpha = self.tensors[f"{module}.lora_down.weight"], self.tensors[f"{module}.alpha"]
                changes[f"{module}.weight"] = (alpha / len(down)) * low_rank_product(part(tensor), down)
            elif key.endswith(".lora_B.weight"):
                changes[f"{module}.weight"] = low_rank_product(part(tensor), self.tensors[f"{module}.lora_A.weight"])
        return changes

    def check_change(self) -> None:
        """Raises ValueError when a tensor holds NaN or infinity, or the patch changes nothing."""
        broken = [key for key, tensor in self.tensors.items() if not tensor.isfinite().all()]
        if broken:
            raise ValueError(
                f"patch: {len(broken)} of its {len(self.tensors)} tensors hold NaN or infinity, such as {broken[0]}; "
                "train with a lower learning rate, and without infinite weights in prompts"
            )
        # Some rows answer for nearly every patch, without multiplying out all factors.
        if not any(change.any() for rows in (SOME_ROWS, None) for change in self.changes(rows).values()):
            raise ValueError("patch: it changes nothing; train with more steps or a higher learning rate")

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the tensors: the same change has the same digest."""
        content = sha256()
        for key in sorted(self.tensors):
            content.update(key.encode() + self.tensors[key].contiguous().numpy().tobytes())
        return content.hexdigest()[:16]

    def with_integrity(self, summary: dict[str, Any]) -> UnlearningPatch:
        """The same patch with the metric's summary in its record."""
        return UnlearningPatch(self.tensors, replace(self.record, integrity=summary))

    def check_base(self, model: Fingerprint) -> None:
        """Raises ValueError when this is not the base that it was trained on."""
        difference = self.record.base.difference(model)
        if difference:
            raise ValueError(
                f"patch for {', '.join(self.record.forget)}: it was trained on another base model than this one "
                f"({difference}); load the base that it was made for, or switch the base check off"
            )


def some_rows(weight: Tensor, rows: int) -> Tensor:
    """At most `rows` of a weight's rows, evenly spaced."""
    return weight[:: -(-len(weight) // rows)]


def module_of(key: str) -> str:
    """The module that a patch tensor changes: `lora_unet_….to_k` for `lora_unet_….to_k.lora_up.weight`."""
    return re.sub(r"\.(diff|diff_b|alpha|lora_(up|down|A|B)\.weight)$", "", key)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A patch file open for reading. Raises ValueError when it is no safetensors file, or is cut short."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"patch file {path.name}: {_what_is_wrong(path)} ({error})") from error


def _what_is_wrong(path: Path) -> str:
    """A message for a file that safetensors refused."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith((b"PK\x03\x04", b"\x80")):
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
