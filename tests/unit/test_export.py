"""`unlearn train` and `unlearn export` on the shipped model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from unlearning_core.cli import main
from unlearning_core.deltas import low_rank_product
from unlearning_core.export import factors, to_full, to_low_rank, weight_error
from unlearning_core.hosts.diffusers import DiffusersModel
from unlearning_core.patch import UnlearningPatch
from unlearning_core.sampling import Sampling, draw

MODEL = Path(__file__).parents[2] / "unlearning_core" / "tiny" / "model"
TRAIN = ["train", "--model", str(MODEL), "--method", "ovw", "--option", "help_weight=3", "--forget", "a cat face"]
TRAIN += ["--overwrite", "a dog face", "--retain", "a car", "--steps", "3", "--learning-rate", "2e-3"]
TRAIN += ["--width", "128", "--height", "128", "--runs", "2", "--run-steps", "3", "--batch-size", "2"]
SIZE = ["--width", "128", "--height", "128", "--steps", "3", "--cfg", "3"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch of matrices and biases."""
    path = tmp_path_factory.mktemp("train") / "patch.safetensors"
    main([*TRAIN, "--weights", "cross_attention", "--out", str(path)])
    return path


def test_train_records_what_it_was_told(file: Path) -> None:
    record = UnlearningPatch.load(file).record
    assert (record.method, record.options["help_weight"]) == ("ovw", 3.0)
    assert (record.forget, record.overwrite, record.retain) == (["a cat face"], ["a dog face"], ["a car"])
    assert (record.settings["steps"], record.settings["weights"]) == (3, "cross_attention")


def test_full_rank_is_the_same_change(file: Path) -> None:
    patch = UnlearningPatch.load(file)
    low_rank = to_low_rank(patch, 10_000)
    assert any(key.endswith(".lora_up.weight") for key in low_rank.tensors)
    for name, change in patch.changes().items():
        torch.testing.assert_close(low_rank.changes()[name], change, rtol=0, atol=1e-5 * float(change.abs().max()))
        torch.testing.assert_close(to_full(low_rank).changes()[name], low_rank.changes()[name], rtol=0, atol=0)


def test_convolutions_have_a_low_rank_too() -> None:
    change = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    up, down = factors(change, 8)
    assert (up.shape, down.shape) == ((6, 6, 1, 1), (6, 5, 3, 3))
    torch.testing.assert_close(low_rank_product(up, down), change)


def test_printed_error_is_the_tail_of_the_singular_values(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(file), str(tmp_path / "rank8.safetensors"), "--rank", "8"])
    printed = re.search(r"error in weights: (\S+) of", capsys.readouterr().out)
    assert printed
    changes = UnlearningPatch.load(file).changes().values()
    values = [torch.linalg.svdvals(change.flatten(1).double()) for change in changes if change.ndim >= 2]
    lost = sum(float((singular[8:] ** 2).sum()) for singular in values)
    whole = sum(float(change.double().square().sum()) for change in changes)
    assert float(printed[1]) == pytest.approx((lost / whole) ** 0.5, rel=1e-2)
    saved = UnlearningPatch.load(tmp_path / "rank8.safetensors")
    assert weight_error(UnlearningPatch.load(file), saved) == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert saved.record.settings["rank"] == 8


def test_error_in_pictures(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(rank: int) -> float:
        arguments = ["--rank", str(rank), "--base", str(MODEL), "--pictures", "1", *SIZE]
        main(["export", str(file), str(tmp_path / f"{rank}.safetensors"), *arguments])
        found = re.search(r"error in I: (\S+) \(LPIPS alex, 1 pictures, sampler euler", capsys.readouterr().out)
        assert found
        return float(found[1])

    assert printed(1) > printed(10_000) == pytest.approx(0, abs=1e-4)


def test_merged_model_draws_as_the_patched_one(file: Path, tmp_path: Path) -> None:
    main(["export", str(file), str(tmp_path / "merged"), "--merge", "--base", str(MODEL)])
    sampling = Sampling(steps=3, width=128, height=128)
    model, shots = DiffusersModel.load(MODEL), [("a cat face", 1)]
    with model.patched(UnlearningPatch.load(file)):
        expected = draw(model, shots, sampling)
    assert torch.equal(draw(DiffusersModel.load(tmp_path / "merged"), shots, sampling), expected)
    assert not torch.equal(draw(model, shots, sampling), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "nowhere", "--forget", "a cat"], "model nowhere: not found"),
        ([*TRAIN, "--option", "helpweight=3"], "ovw has no 'helpweight'; it has help_weight"),
        ([*TRAIN, "--option", "help_weight=much"], "'much' is no number"),
        (["export", "patch", "out", "--merge"], "--merge and --pictures need the base model"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 1
    assert message in capsys.readouterr().err
