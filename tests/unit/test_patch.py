"""Patch files: the same bytes for the same patch, read back whole, refused when they are something else."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from unlearning_core.changes import module_of
from unlearning_core.deltas import FullDelta, LowRankDelta, low_rank_product, make_deltas
from unlearning_core.fingerprint import Fingerprint
from unlearning_core.methods import METHODS
from unlearning_core.patch import FORMAT, Record, UnlearningPatch
from unlearning_core.prompts import Prompts
from unlearning_core.settings import Settings
from unlearning_core.unlearn import record_of

MODULE = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture
def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{MODULE}.weight": torch.randn(6, 4, generator=generator),
        f"{MODULE}.bias": torch.randn(6, generator=generator),
        "lora_unet_conv_in.weight": torch.randn(6, 4, 3, 3, generator=generator),
    }


@pytest.fixture
def patch(weights: dict[str, Tensor]) -> UnlearningPatch:
    record = record_of(
        METHODS["ovw"](), Prompts(("a cat",), ("a dog",), ("a car",)), Settings(), Fingerprint.of(weights)
    )
    return UnlearningPatch({f"{MODULE}.diff": torch.ones(6, 4), f"{MODULE}.diff_b": torch.ones(6)}, record)


def test_round_trip(patch: UnlearningPatch, tmp_path: Path) -> None:
    patch.save(tmp_path / "deep" / "patch.safetensors")
    loaded = UnlearningPatch.load(tmp_path / "deep" / "patch.safetensors")
    assert loaded.record == patch.record
    assert loaded.tensors.keys() == patch.tensors.keys()
    assert all(torch.equal(loaded.tensors[key], patch.tensors[key]) for key in patch.tensors)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["patch.safetensors"]


def test_header_is_sorted_and_tells_other_tools_what_it_is(patch: UnlearningPatch, tmp_path: Path) -> None:
    patch.save(tmp_path / "patch.safetensors")
    data = (tmp_path / "patch.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    assert list(metadata) == sorted(metadata)
    assert metadata["modelspec.title"] == "ovw forgets a cat"


def test_failed_save_leaves_the_old_file(
    patch: UnlearningPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "patch.safetensors"
    patch.save(path)
    before = path.read_bytes()

    def no_room(partial: Path, path: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("unlearning_core.files.move_into_place", no_room)
    with pytest.raises(OSError, match="no space"):
        patch.with_integrity({"integrity": 0.1}).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_something_else(patch: UnlearningPatch, tmp_path: Path) -> None:
    def message(name: str) -> str:
        with pytest.raises(ValueError) as error:
            UnlearningPatch.load(tmp_path / name)
        return str(error.value)

    patch.save(tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for name, content in (
        ("cut.safetensors", whole[:-10]),
        ("stub.safetensors", whole[:4]),
        ("empty.safetensors", b""),
    ):
        (tmp_path / name).write_bytes(content)
        assert message(name).startswith(f"patch file {name}: this is not a safetensors file, or it was cut short")
    torch.save({}, tmp_path / "pickle.safetensors")
    assert "pickle with another name" in message("pickle.safetensors")
    save_file({"lora_unet_x.diff": torch.ones(1)}, tmp_path / "lora.safetensors")
    assert "holds no unlearning record" in message("lora.safetensors")


def test_base_check(patch: UnlearningPatch, weights: dict[str, Tensor]) -> None:
    patch.check_base(Fingerprint.of(weights))
    patch.check_base(Fingerprint.of({name: weight.bfloat16() for name, weight in weights.items()}))
    with pytest.raises(ValueError, match=r"a cat: it was trained on another base model .*its weights differ by 100%"):
        patch.check_base(Fingerprint.of({name: 2 * weight for name, weight in weights.items()}))
    with pytest.raises(ValueError, match="its architecture is another"):
        patch.check_base(Fingerprint.of({name: weight for name, weight in weights.items() if "bias" not in name}))


@pytest.mark.parametrize(
    "record",
    ["{}", "[]", "{", '{"method": "ovw", "base": {}}', '{"base": {"sketch": 1}, "x": 2}', '{"format": "two"}'],
)
def test_records_of_other_versions(tmp_path: Path, record: str) -> None:
    save_file({"x.diff": torch.ones(1)}, tmp_path / "newer.safetensors", {"unlearning": record})
    message = r"patch file newer\.safetensors: its record was made by another version of this pack, or damaged"
    with pytest.raises(ValueError, match=message):
        UnlearningPatch.load(tmp_path / "newer.safetensors")


def save_with_record(patch: UnlearningPatch, path: Path, fields: dict[str, Any]) -> None:
    """The patch's tensors in a file with these fields for its record."""
    save_file(patch.tensors, path, {**patch.record.to_metadata(), "unlearning": json.dumps(fields)})


def test_record_has_the_format_number(patch: UnlearningPatch) -> None:
    assert json.loads(patch.record.to_metadata()["unlearning"])["format"] == FORMAT


def test_file_from_before_the_format_number(patch: UnlearningPatch, tmp_path: Path) -> None:
    fields = asdict(patch.record)
    del fields["format"]
    save_with_record(patch, tmp_path / "old.safetensors", fields)
    loaded = UnlearningPatch.load(tmp_path / "old.safetensors")
    assert loaded.record == replace(patch.record, format=1)
    assert loaded.digest == patch.digest


@pytest.mark.parametrize("others", [{}, {"a field": "of the future"}])
def test_file_of_a_newer_format(patch: UnlearningPatch, tmp_path: Path, others: dict[str, Any]) -> None:
    fields = {**asdict(patch.record), "format": FORMAT + 1, **others}
    save_with_record(patch, tmp_path / "newer.safetensors", fields)
    with pytest.raises(ValueError) as error:
        UnlearningPatch.load(tmp_path / "newer.safetensors")
    assert str(error.value) == (
        f"patch file newer.safetensors: it has format {FORMAT + 1}, this version reads up to {FORMAT}; update the pack"
    )


def test_header_alone_tells_what_a_patch_is(patch: UnlearningPatch, tmp_path: Path) -> None:
    path = tmp_path / "patch.safetensors"
    patch.save(path)
    assert Record.read(path) == patch.record
    assert Record.read(path).title == "ovw forgets a cat"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="cut short"):
        Record.read(path)


@pytest.mark.parametrize(("rank", "scale"), [(0, 1.0), (2, 1.0), (2, 0.75)])
@pytest.mark.parametrize("rename", [str, "transformer.{}".format])
def test_changes_are_what_was_trained(
    patch: UnlearningPatch, weights: dict[str, Tensor], rank: int, scale: float, rename: Callable[[str], str]
) -> None:
    weights = {rename(name): weight for name, weight in weights.items()}
    deltas = make_deltas(weights, rank, seed=0, device=torch.device("cpu"), scale=scale)
    for delta in deltas.values():
        for parameter in delta.parameters():
            torch.nn.init.normal_(parameter)
    tensors = {key: tensor for name, delta in deltas.items() for key, tensor in delta.tensors(name).items()}
    changes = UnlearningPatch(tensors, patch.record).changes()
    assert changes.keys() == deltas.keys()
    sampled = UnlearningPatch(tensors, patch.record).changes(rows=3)
    # A product of fewer rows may take another path through the processor, a few roundings (1e-7) away.
    rtol, atol = (1e-5, 1e-6) if rank else (0.0, 0.0)
    for name, delta in deltas.items():
        torch.testing.assert_close(weights[name] + changes[name], delta(weights[name]))
        torch.testing.assert_close(sampled[name], changes[name][::2], rtol=rtol, atol=atol)
        if rank:
            product = low_rank_product(delta.get_parameter("up"), delta.get_parameter("down"))
            torch.testing.assert_close(changes[name], scale * product)


def test_alpha_is_counted_in_ranks() -> None:
    assert Settings(rank=8).lora_scale == Settings(rank=8, alpha=8).lora_scale == Settings(alpha=3).lora_scale == 1
    assert Settings(rank=8, alpha=4).lora_scale == 0.5


@pytest.mark.parametrize("rank", [0, 2])
def test_masked_weights_do_not_train(weights: dict[str, Tensor], rank: int) -> None:
    """Of a full change exactly; low-rank factors get the gradient of the others alone."""
    weight = weights[f"{MODULE}.weight"]
    [delta] = make_deltas({"x.weight": weight}, rank, seed=0, device=torch.device("cpu")).values()
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    delta.train_only(mask)
    (delta(weight) ** 2).sum().backward()
    upstream = 2 * weight * mask
    if rank == 0:
        assert torch.equal(delta.get_parameter("diff").grad, upstream)  # type: ignore[arg-type]
    else:
        expected = upstream @ delta.get_parameter("down").T
        torch.testing.assert_close(delta.get_parameter("up").grad, expected)


def test_new_deltas_change_nothing(weights: dict[str, Tensor]) -> None:
    for rank, kind in ((0, FullDelta), (2, LowRankDelta)):
        deltas = make_deltas(weights, rank, seed=0, device=torch.device("cpu"))
        assert deltas
        for name, delta in deltas.items():
            assert isinstance(delta, kind)
            assert torch.equal(delta(weights[name]), weights[name])


def test_low_rank_needs_a_matrix(weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="set rank to 0"):
        make_deltas({"x.bias": weights[f"{MODULE}.bias"]}, 4, 0, torch.device("cpu"))


@pytest.mark.parametrize("suffix", ["diff", "diff_b", "alpha", "lora_up.weight", "lora_down.weight"])
@pytest.mark.parametrize("module", [MODULE, "diffusion_model.double_blocks.0.txt_attn.qkv"])
def test_module_of(module: str, suffix: str) -> None:
    assert module_of(f"{module}.{suffix}") == module
