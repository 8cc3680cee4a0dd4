"""`unlearn train` and `unlearn export` on the shipped model."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from unlearning_core.cli import main
from unlearning_core.deltas import low_rank_product
from unlearning_core.export import factors, merge, to_full, to_low_rank, weight_error
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.patch import UnlearningPatch
from unlearning_core.sampling import Sampling
from unlearning_core.tiny import MODEL

TRAIN = ["train", "--model", str(MODEL), "--method", "ovw", "--option", "help_weight=3", "--forget", "a cat face"]
TRAIN += ["--overwrite", "a dog face", "--retain", "a car", "--steps", "3", "--learning-rate", "2e-3"]
TRAIN += ["--width", "128", "--height", "128", "--runs", "2", "--run-steps", "3", "--batch-size", "2"]
SIZE = ["--width", "128", "--height", "128", "--steps", "3", "--cfg", "3"]


@pytest.fixture(scope="module")
def matrices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch without biases."""
    path = tmp_path_factory.mktemp("train") / "matrices.safetensors"
    main([*TRAIN, "--weights", "cross_attention_kv", "--out", str(path)])
    return path


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


def test_alpha_is_in_the_file(tmp_path: Path) -> None:
    main([*TRAIN, "--rank", "4", "--alpha", "2", "--out", str(tmp_path / "lora.safetensors")])
    patch = UnlearningPatch.load(tmp_path / "lora.safetensors")
    assert (patch.record.settings["rank"], patch.record.settings["alpha"]) == (4, 2)
    alphas = {float(tensor) for key, tensor in patch.tensors.items() if key.endswith(".alpha")}
    assert alphas == {2.0}
    name, change = next(iter(patch.changes().items()))
    module = name.removesuffix(".weight")
    up, down = (patch.tensors[f"{module}.lora_{part}.weight"] for part in ("up", "down"))
    torch.testing.assert_close(change, 0.5 * up @ down)


def test_layers_that_a_lora_leaves_out_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*TRAIN, "--steps", "1", "--rank", "2", "--weights", "all", "--out", str(tmp_path / "lora.safetensors")])
    lost = "lora_unet_time_embedding_linear_1, lora_unet_time_embedding_linear_2, which diffusers does not find"
    assert lost in caplog.text
    main([*TRAIN, "--steps", "1", "--weights", "all", "--out", str(tmp_path / "full.safetensors")])
    main(["export", str(tmp_path / "full.safetensors"), str(tmp_path / "low.safetensors"), "--rank", "1000"])
    # At full rank, what is left out is all that is lost.
    printed = capsys.readouterr().out
    found = re.search(rf"{lost} in LoRA files: (\S+) of the change's norm\nthe rank loses (\S+) of", printed)
    assert found
    assert 0 < float(found[1]) == pytest.approx(float(found[2]), rel=1e-2)


def test_full_rank_is_the_same_change(matrices: Path) -> None:
    patch = UnlearningPatch.load(matrices)
    low_rank = to_low_rank(patch, 10_000)
    assert any(key.endswith(".lora_up.weight") for key in low_rank.tensors)
    for name, change in patch.changes().items():
        torch.testing.assert_close(low_rank.changes()[name], change, rtol=0, atol=1e-5 * float(change.abs().max()))
        torch.testing.assert_close(to_full(low_rank).changes()[name], low_rank.changes()[name], rtol=0, atol=0)


def test_convolutions_have_a_low_rank_too() -> None:
    change = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    up, down = factors(change, 8)
    assert (up.shape, down.shape) == ((6, 8, 1, 1), (8, 5, 3, 3))
    torch.testing.assert_close(low_rank_product(up, down), change)


def test_printed_error_is_the_tail_of_the_singular_values(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(file), str(tmp_path / "rank8.safetensors"), "--rank", "8"])
    printed = re.search(r"the rank loses (\S+) of", capsys.readouterr().out)
    assert printed
    changes = UnlearningPatch.load(file).changes().values()
    values = [torch.linalg.svdvals(change.flatten(1).double()) for change in changes if change.ndim >= 2]
    lost = sum(float((singular[8:] ** 2).sum()) for singular in values)
    lost += sum(float(change.double().square().sum()) for change in changes if change.ndim < 2)  # biases
    whole = sum(float(change.double().square().sum()) for change in changes)
    assert float(printed[1]) == pytest.approx((lost / whole) ** 0.5, rel=1e-2)
    saved = UnlearningPatch.load(tmp_path / "rank8.safetensors")
    assert weight_error(UnlearningPatch.load(file), saved) == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert saved.record.settings["rank"] == 8


def test_diffusers_opens_the_lora_of_a_patch_with_biases(file: Path, tmp_path: Path) -> None:
    main(["export", str(file), str(tmp_path / "lora.safetensors"), "--rank", "8"])
    patch, lora = (UnlearningPatch.load(path) for path in (file, tmp_path / "lora.safetensors"))
    assert any(key.endswith(".diff_b") for key in patch.tensors)
    assert not any(key.endswith(".diff_b") for key in lora.tensors)
    prompt_seeds, sampling = [("a cat face", 1)], Sampling(steps=3, width=128, height=128)
    model = load(MODEL)
    base = draw(model, prompt_seeds, sampling)
    with model.patched(lora):
        expected = draw(model, prompt_seeds, sampling)
    model.pipeline.load_lora_weights(tmp_path / "lora.safetensors")
    try:
        torch.testing.assert_close(draw(model, prompt_seeds, sampling), expected, rtol=0, atol=1e-4)
    finally:
        model.pipeline.unload_lora_weights()
    assert (expected - base).abs().max() > 1e-3


def test_error_in_pictures(matrices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(rank: int) -> float:
        arguments = ["--rank", str(rank), "--base", str(MODEL), "--pictures", "1", *SIZE]
        main(["export", str(matrices), str(tmp_path / f"{rank}.safetensors"), *arguments])
        found = re.search(r"with the LoRA: (\S+) \(1 pictures of .*, sampler euler", capsys.readouterr().out)
        assert found
        return float(found[1])

    assert printed(1) > printed(10_000) == pytest.approx(0, abs=1e-4)


def test_merged_model_draws_as_the_patched_one(file: Path, tmp_path: Path) -> None:
    main(["export", str(file), str(tmp_path / "merged"), "--merge", "--base", str(MODEL)])
    sampling = Sampling(steps=3, width=128, height=128)
    model, prompt_seeds = load(MODEL), [("a cat face", 1)]
    merged = load(tmp_path / "merged")
    base = draw(model, prompt_seeds, sampling)
    with model.patched(UnlearningPatch.load(file)):
        expected = draw(model, prompt_seeds, sampling)
        patched = {name: parameter.clone() for name, parameter in model.denoiser.named_parameters()}
    assert all(torch.equal(parameter, patched[name]) for name, parameter in merged.denoiser.named_parameters())
    # Weights read from a file lie at odd addresses, which may take other kernels: 1e-7 a layer, for three steps.
    torch.testing.assert_close(draw(merged, prompt_seeds, sampling), expected, rtol=0, atol=1e-4)
    assert (expected - base).abs().max() > 1e-3


@pytest.mark.parametrize("strength", ["nan", "inf", "1e39", "-11"])
def test_a_strength_is_a_number_in_range(file: Path, strength: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(file), "merged", "--merge", "--base", str(MODEL), f"--strength={strength}"])
    assert "is out of range; choose -10.0 to 10.0" in capsys.readouterr().err


def test_only_a_merge_has_a_strength(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", str(file), str(tmp_path / "full.safetensors"), "--full", "--strength", "2"])
    assert "--strength: only --merge applies one" in capsys.readouterr().err
    assert not (tmp_path / "full.safetensors").exists()


def test_merging_stops_before_it_loads_and_leaves_no_half(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(SystemExit):
        main(["export", str(file), str(tmp_path / "taken"), "--merge", "--base", "nowhere"])
    assert "taken: is there already; name a new folder" in capsys.readouterr().err

    def no_room(partial: Path, path: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("unlearning_core.files.move_into_place", no_room)
    with pytest.raises(OSError, match="no space"):
        merge(load(MODEL), UnlearningPatch.load(file), 1.0, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_models_that_are_not_safetensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match=r"model model\.ckpt: this is not a safetensors file"):
        load(tmp_path / "model.ckpt", config=MODEL)
    shutil.copytree(MODEL, tmp_path / "pickled")
    for path in (tmp_path / "pickled").rglob("*.safetensors"):
        path.unlink()
    for part in ("unet", "vae", "text_encoder"):
        torch.save({}, tmp_path / "pickled" / part / "diffusion_pytorch_model.bin")
        torch.save({}, tmp_path / "pickled" / part / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded as a diffusers folder of safetensors files"):
        load(tmp_path / "pickled")


def test_a_name_on_hugging_face_is_asked_for_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DiffusionPipeline

    asked: list[tuple[object, object]] = []

    def missing(source: object, **options: object) -> None:
        asked.append((source, options["local_files_only"]))
        raise OSError("no such model")

    monkeypatch.setattr(DiffusionPipeline, "load_config", missing)
    with pytest.raises(ValueError, match=r"model owner/model: it cannot be loaded .*no such model"):
        load("owner/model")
    assert asked == [("owner/model", False)]


def test_model_is_in_the_precision_that_was_asked_for() -> None:
    model = load(MODEL, dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.weights().values()} == {torch.bfloat16}
    with pytest.raises(SystemExit):
        main([*TRAIN, "--precision", "float16"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "nowhere", "--forget", "a cat"], "model nowhere: not found"),
        ([*TRAIN, "--option", "helpweight=3"], "ovw has no 'helpweight'; it has help_weight"),
        ([*TRAIN, "--option", "help_weight=much"], "'much' is no number"),
        (["train", "--model", "nowhere", "--method", "uce", "--forget", "a cat", "--rank", "4"], "set rank to 0"),
        ([*TRAIN, "--out", "forget-cat"], "forget-cat: no name for a patch; write one that ends in .safetensors"),
        (["export", "patch", "out", "--merge"], "--merge and --pictures need the base model"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 1
    assert message in capsys.readouterr().err
