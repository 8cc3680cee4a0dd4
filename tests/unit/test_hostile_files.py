"""Patch files that are damaged or made up: read as they were written, or refused by name before anything is applied."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor

from unlearning_core.changes import TYPES, WEIGHT_FORMS, change_shapes
from unlearning_core.deltas import low_rank_part
from unlearning_core.export import to_full, to_low_rank
from unlearning_core.fingerprint import Fingerprint
from unlearning_core.hosts.families import load
from unlearning_core.methods import METHODS
from unlearning_core.patch import KEY, SEAL, Record, UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.unlearn import record_of

NAME = "hostile.safetensors"
TENSORS = {
    "lora_unet_a.diff": torch.arange(1.0, 13.0).view(4, 3),
    "lora_unet_a.diff_b": torch.arange(1.0, 5.0),
    "lora_unet_b.lora_up.weight": torch.arange(1.0, 9.0).view(4, 2, 1, 1),
    "lora_unet_b.lora_down.weight": torch.arange(1.0, 55.0).view(2, 3, 3, 3),
    "lora_unet_b.alpha": torch.tensor(1.0),
    "transformer.c.lora_B.weight": torch.arange(1.0, 9.0).view(4, 2),
    "transformer.c.lora_A.weight": torch.arange(1.0, 7.0).view(2, 3),
}
BASE = Fingerprint.of({"a.weight": torch.ones(4, 3), "b.weight": torch.ones(4, 27)}, {"a.weight": torch.ones(4, 3)})
RECORD = replace(
    record_of(METHODS["ovw"](), Prompts(("a cat",), ("a dog",), ("a car",)), Settings(), BASE),
    wordings={"a cat": ["a kitty"]},
    integrity={"figures": {"I": 0.5}, "retain": [1, None, "x"]},
)
PATCH = UnlearningPatch(TENSORS, RECORD)
FIELDS = asdict(RECORD)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / NAME


@pytest.fixture(scope="module")
def whole(file: Path) -> bytes:
    PATCH.save(file)
    return file.read_bytes()


def refusal(path: Path) -> str:
    """Why a file is refused, which is one line that begins with its name."""
    with pytest.raises(ValueError) as error:
        UnlearningPatch.load(path)
    text = str(error.value)
    assert text.startswith(f"patch file {path.name}: ") and "\n" not in text and len(text) < 600
    assert "; " in text
    return text


def same(patch: UnlearningPatch) -> bool:
    """Whether it is the one that was written."""
    tensors = patch.tensors
    return patch.record == RECORD and {key: tensor.tolist() for key, tensor in tensors.items()} == {
        key: tensor.tolist() for key, tensor in TENSORS.items()
    }


MUTATIONS: dict[str, Callable[[bytes, int, int, int], bytes]] = {
    "another byte": lambda data, at, to, byte: data[:at] + bytes([byte]) + data[at + 1 :],
    "a flipped bit": lambda data, at, to, byte: data[:at] + bytes([data[at] ^ 1 << byte % 8]) + data[at + 1 :],
    "cut": lambda data, at, to, byte: data[:at],
    "without a part": lambda data, at, to, byte: data[:at] + data[to:],
    "a part twice": lambda data, at, to, byte: data[:to] + data[at:],
    "two parts swapped": lambda data, at, to, byte: data[to:] + data[at:to] + data[:at],
    "more behind it": lambda data, at, to, byte: data + data[at:to] + bytes([byte]),
}


@given(how=st.sampled_from([*MUTATIONS]), places=st.tuples(st.floats(0, 1), st.floats(0, 1)), byte=st.integers(0, 255))
@settings(max_examples=500, deadline=None)
def test_any_change_of_the_bytes_is_noticed(
    file: Path, whole: bytes, how: str, places: tuple[float, float], byte: int
) -> None:
    at, to = sorted(int(place * (len(whole) - 1)) for place in places)
    file.write_bytes(MUTATIONS[how](whole, at, to, byte))
    try:
        patch = UnlearningPatch.load(file)
    except ValueError as error:
        assert str(error).startswith(f"patch file {NAME}: ")
    else:
        assert same(patch)


def test_file_is_read_as_it_was_written(file: Path, whole: bytes) -> None:
    file.write_bytes(whole)
    assert same(UnlearningPatch.load(file))


def test_every_byte_of_the_tensors_counts(file: Path, whole: bytes) -> None:
    size = sum(tensor.nbytes for tensor in TENSORS.values())
    for at in range(len(whole) - size, len(whole), 7):
        file.write_bytes(MUTATIONS["a flipped bit"](whole, at, 0, 0))
        refusal(file)


@pytest.mark.parametrize("key", TENSORS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none(file: Path, key: str, value: float) -> None:
    broken = TENSORS[key].clone()
    broken.view(-1)[-1] = value
    save_file({**TENSORS, key: broken}, file, RECORD.to_metadata())
    assert f"1 of its 7 tensors hold NaN or infinity, such as {key}" in refusal(file)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.int32], ids=str)
@pytest.mark.parametrize("key", TENSORS)
def test_types_that_no_change_has(file: Path, key: str, dtype: torch.dtype) -> None:
    save_file({**TENSORS, key: TENSORS[key].to(dtype)}, file, RECORD.to_metadata())
    assert f"{key!r} has the type " in refusal(file)


@pytest.mark.parametrize("key", [key for key in TENSORS if "diff" not in key])
def test_tensors_without_those_that_belong_to_them(file: Path, key: str) -> None:
    save_file({other: tensor for other, tensor in TENSORS.items() if other != key}, file, RECORD.to_metadata())
    assert "lacks" in refusal(file)


@pytest.mark.parametrize(
    "key",
    [
        "lora_te_text_model.lora_mid.weight",
        "lora_unet_b.dora_scale",
        "lora_unet_a.w_norm",
        "lora_unet_b.diff",
        "lora_unet_b.lora_B.weight",
        "lora_unet_d.alpha",
        "transformer.c.alpha",
        "diff",
        ".diff",
        "",
        "lora_unet_a.diff\n",
        "lora_unet_\n.diff",
        f"lora_unet_{'x' * 400}.diff",
    ],
)
def test_tensors_that_no_patch_has(file: Path, key: str) -> None:
    save_file({**TENSORS, key: torch.tensor(1.0)}, file, RECORD.to_metadata())
    refusal(file)


@pytest.mark.parametrize("key", [key for key in TENSORS if "diff" not in key])
@pytest.mark.parametrize(
    "reshape", [lambda tensor: tensor.reshape(1, -1), lambda tensor: tensor.reshape(-1), lambda tensor: tensor[..., :0]]
)
def test_factors_that_do_not_fit(file: Path, key: str, reshape: Callable[[Tensor], Tensor]) -> None:
    changed = reshape(TENSORS[key].reshape(1) if TENSORS[key].ndim == 0 else TENSORS[key]).contiguous()
    save_file({**TENSORS, key: changed}, file, RECORD.to_metadata())
    refusal(file)


@pytest.mark.parametrize("key", [key for key in TENSORS if "lora_" in key.split(".", 1)[1]])
def test_factors_whose_product_overflows(file: Path, key: str) -> None:
    save_file({**TENSORS, key: torch.full_like(TENSORS[key], 1e37)}, file, RECORD.to_metadata())
    assert "may be infinite" in refusal(file)


@pytest.mark.parametrize("length", range(256, 512))
def test_a_cut_file_is_no_pickle(file: Path, length: int) -> None:
    """Whatever the length of the header, which the file begins with."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    file.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + bytes(15))
    assert "cut short" in refusal(file)


def test_a_patch_has_tensors(file: Path) -> None:
    file.write_bytes(save({}, RECORD.to_metadata()))
    assert "it has no tensors" in refusal(file)


WRONG: dict[str, Any] = {"null": None, "number": 3, "truth": True, "text": "x", "list": [1], "dictionary": {"x": [1]}}
ALLOWED = {
    "prediction": "text",
    "bits": "number",
    "settings": "dictionary",
    "wordings": "null",
    "stopped": "null number",
    "integrity": "null dictionary",
    "format": "number",
    "method": "text",
}
TYPED = [
    (holder, name, kind)
    for holder, fields in (("", FIELDS), ("base", FIELDS["base"]))
    for name in fields
    for kind in WRONG
    if kind not in ALLOWED.get(name, "")
]


@contextmanager
def record_file(path: Path, text: str) -> Iterator[Path]:
    """A file with another record."""
    save_file(TENSORS, path, {**RECORD.to_metadata(), KEY: text})
    yield path


@pytest.mark.parametrize(("holder", "name", "kind"), TYPED)
def test_fields_of_another_type(file: Path, holder: str, name: str, kind: str) -> None:
    fields = json.loads(json.dumps(FIELDS))
    (fields[holder] if holder else fields)[name] = WRONG[kind]
    with record_file(file, json.dumps(fields)):
        assert name in refusal(file)


@pytest.mark.parametrize(
    "name", [name for name in FIELDS if name not in ("wordings", "stopped", "integrity", "format")]
)
def test_fields_that_are_missing(file: Path, name: str) -> None:
    with record_file(file, json.dumps({key: value for key, value in FIELDS.items() if key != name})):
        assert f"{name} is missing" in refusal(file)


def deep(levels: int) -> str:
    return json.dumps(FIELDS)[:-1] + ', "settings": ' + '{"a": ' * levels + "1" + "}" * levels + "}"


def base(**changes: str) -> str:
    return json.dumps({**FIELDS, "base": {**FIELDS["base"], **changes}})


RECORDS = {
    "unknown field": (json.dumps({**FIELDS, "magic": 1}), "'magic' is unknown"),
    "unknown field of the base": (base(magic="x"), "base.'magic' is unknown"),
    "no JSON": ("{", "Expecting"),
    "list": ("[]", "no dictionary"),
    "deep": (deep(100), "nested too deeply"),
    "as deep as can be": (deep(100_000), "nested too deeply"),
    "NaN": (json.dumps({**FIELDS, "options": {"x": float("nan")}}), "NaN"),
    "infinity": (json.dumps({**FIELDS, "options": {"x": float("inf")}}), "Infinity"),
    "an infinite number": (json.dumps({**FIELDS, "options": {"x": 7}}).replace("7", "1e999"), "1e999"),
    "a number of many digits": (json.dumps({**FIELDS, "settings": {"x": 10**4000}}), "4001 digits"),
    "half a character": (json.dumps({**FIELDS, "forget": ["a \ud800"]}), "half a character"),
    "format 0": (json.dumps({**FIELDS, "format": 0}), "format"),
    "format of the future": (json.dumps({**FIELDS, "format": 10**9}), "update the pack"),
    "sketch that is no base64": (base(sketch="ä!"), "base.sketch"),
    "sketch of odd length": (base(sketch="AAAA"), "base.sketch"),
    "empty sketch": (base(sketch=""), "base.sketch"),
    "sketch of NaN": (base(sketch="AH4="), "base.sketch holds no values, NaN"),
    "changes of odd length": (base(patches="AAAAAAA="), "base.patches"),
    "changes without architecture": (base(patched=""), "base.patched"),
    "architecture in words": (base(architecture="sd15"), "base.architecture"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_are_none(file: Path, name: str) -> None:
    text, message = RECORDS[name]
    with record_file(file, text):
        assert message in refusal(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from([*FIELDS]), value=JSON)
@settings(max_examples=200, deadline=None)
def test_any_record_is_one_or_is_refused(name: str, value: Any) -> None:
    try:
        record = Record.from_json(json.dumps({**FIELDS, name: value}))
    except ValueError:
        return
    again = json.loads(record.to_metadata()[KEY])
    assert again == {**FIELDS, name: value}
    assert len(record.title) <= 200 and "\n" not in record.title


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    header, content = header_of(data)
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "huge header": lambda data: struct.pack("<Q", 2**63) + data[8:],
    "header longer than the file": lambda data: struct.pack("<Q", len(data)) + data[8:],
    "deep header": lambda data: struct.pack("<Q", 200_000) + b'{"a":' * 40_000,
    "no UTF-8": lambda data: data.replace(b"a cat", b"a \xff\xfe\xfdt"),
    "no metadata": lambda data: with_header(data, lambda header: header.pop("__metadata__")),
    "metadata that is no text": lambda data: with_header(data, lambda header: header["__metadata__"].update(x=1)),
    "metadata that is a list": lambda data: with_header(data, lambda header: header.update(__metadata__=[])),
    "no seal": lambda data: with_header(data, lambda header: header["__metadata__"].pop(SEAL)),
    "another seal": lambda data: with_header(data, lambda header: header["__metadata__"].update({SEAL: "0" * 64})),
    "a type of 4 bits": lambda data: with_header(data, lambda header: header["lora_unet_a.diff"].update(dtype="F4")),
    "negative side": lambda data: with_header(data, lambda header: header["lora_unet_a.diff"].update(shape=[-4, -3])),
    "two tensors in one place": lambda data: with_header(
        data, lambda header: header.update({"lora_unet_a.diff_b": header["lora_unet_a.diff"]})
    ),
    "transposed in the header": lambda data: with_header(
        data, lambda header: header["lora_unet_a.diff"].update(shape=[3, 4])
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_contents_that_are_none(file: Path, whole: bytes, name: str) -> None:
    file.write_bytes(CONTENTS[name](whole))
    refusal(file)


def test_paths_that_lead_to_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "gone")
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("folder", "link", "loop", "pipe", "missing", "x" * 300):
        refusal(tmp_path / f"{name}.safetensors")

    def closed(path: Path, *arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    PATCH.save(tmp_path / "closed.safetensors")
    monkeypatch.setattr(Path, "open", closed)
    assert "it cannot be read (Permission denied)" in refusal(tmp_path / "closed.safetensors")


SHAPES = change_shapes(TENSORS)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "change", [lambda shape: shape[::-1], lambda shape: (1, *shape), lambda shape: shape[1:], lambda shape: (5, 7)]
)
def test_weights_of_another_shape_are_refused(name: str, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> None:
    PATCH.check_fit(SHAPES)
    other = change(SHAPES[name])
    if other != SHAPES[name]:
        with pytest.raises(ValueError, match=f"patch for a cat: 1 of the 4 weights .*{name}"):
            PATCH.check_fit({**SHAPES, name: other})
    with pytest.raises(ValueError, match=f"this model lacks 1 of the 4 weights .*{name}"):
        PATCH.check_fit({key: shape for key, shape in SHAPES.items() if key != name})


def test_shapes_are_those_of_the_changes() -> None:
    assert {name: tuple(change.shape) for name, change in PATCH.changes().items()} == SHAPES
    assert {len(form) for form in WEIGHT_FORMS} == {1, 2, 3}


@pytest.mark.parametrize("dtype", TYPES.values(), ids=str)
def test_patches_of_every_precision(file: Path, dtype: torch.dtype) -> None:
    patch = UnlearningPatch({key: tensor.to(dtype) for key, tensor in TENSORS.items()}, RECORD)
    patch.save(file)
    loaded = UnlearningPatch.load(file)
    rounded = UnlearningPatch({key: tensor.to(dtype).float() for key, tensor in TENSORS.items()}, RECORD)
    assert loaded.digest == patch.digest and (loaded.digest == rounded.digest) == (dtype == torch.float32)
    for converted in (loaded, to_full(loaded)):
        assert all(torch.equal(change, rounded.changes()[name]) for name, change in converted.changes().items())
    assert to_low_rank(loaded, 2).changes().keys() == low_rank_part(loaded.changes()).keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_diffusers_models_take_every_precision_and_refuse_other_shapes(dtype: torch.dtype) -> None:
    model = load(MODEL)
    name, weight = next((name, weight) for name, weight in model.weights().items() if weight.ndim == 2)
    module = name.removesuffix(".weight")
    diff = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    with model.patched(UnlearningPatch({f"{module}.diff": diff}, RECORD)):
        assert torch.equal(model.weights()[name], weight + diff.float())
    for shape in ((1, *weight.shape), weight.shape[1:], (1,)):
        with (
            pytest.raises(ValueError, match=r"have another shape in this model"),
            model.patched(UnlearningPatch({f"{module}.diff": torch.ones(shape)}, RECORD)),
        ):
            pass
