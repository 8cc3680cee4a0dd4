"""CLIPScore, CMMD, FID and the AlexNet Fréchet distance over drawn pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unlearning_core.metrics import inception
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.drawing import Shot
from unlearning_core.metrics.inception import CHECKPOINT, Fid, InceptionNotFound
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.quality import Quality, measure_quality

RETAIN = ["a car in noto style", "a house"]


def painted(shots: Sequence[Shot], change: float = 0.0) -> Tensor:
    pictures = [torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(seed)) for _, seed in shots]
    return torch.lerp(torch.stack(pictures), torch.tensor(0.5), change)


def run(change: float, clip: Clip | None = None, fid: Fid | None = None, **changes: object) -> Quality:
    options = {"retain": RETAIN, "forget": ["a frog"], "seeds": range(3), "forget_seeds": range(2), "settings": {}}
    lpips = Lpips("alex")
    return measure_quality(
        painted,
        lambda shots: painted(shots, change),
        lpips,
        **{**options, **changes},  # type: ignore[arg-type]
        clip=clip,
        fid=fid,
    )


def test_the_figures_grow_with_the_change_and_are_zero_without() -> None:
    clip = Clip.load(SHIPPED_FOLDER)
    same, near, far = (run(change, clip) for change in (0.0, 0.2, 0.8))
    assert same.frechet_alexnet == pytest.approx(0, abs=1e-6) and same.cmmd == pytest.approx(0, abs=1e-6)
    assert 0 < near.frechet_alexnet < far.frechet_alexnet
    assert same.clip_score and same.clip_score.unlearned == same.clip_score.base
    assert far.forget_clip_score and far.forget_clip_score.unlearned != far.forget_clip_score.base
    assert far.fid is None
    assert json.loads(json.dumps(far.summary(), allow_nan=False))["settings"]["CLIP"] == "clip"
    assert "FID" not in far.markdown()
    assert "Fréchet distance (AlexNet features)" in far.markdown()


def test_one_picture_is_too_few() -> None:
    with pytest.raises(ValueError, match="retain prompts: a Fréchet distance needs two pictures"):
        run(0.1, retain=["a car"], seeds=range(1))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random Inception weights under the checkpoint's name, whose hash stands for the right one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *args, **kwargs: {}
    )
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    torch.manual_seed(0)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    monkeypatch.undo()
    path = tmp_path / CHECKPOINT
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "_hash_prefix", lambda: digest[:8])
    return path


def test_fid_through_torchmetrics(weights: Path) -> None:
    """With random weights: the network runs, and its distance is 0 for equal sets and grows with the change."""
    values = [run(change, fid=Fid([weights.parent])).fid for change in (0.0, 0.9)]
    assert values[0] == pytest.approx(0, abs=1e-2)
    assert values[1] is not None and values[1] > 10 * abs(values[0] or 0)


def test_missing_and_damaged_inception_weights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(InceptionNotFound, match=f"{CHECKPOINT}.*Fréchet distance on AlexNet") as missing:
        Fid([tmp_path / "models"])
    assert str(tmp_path / "models" / CHECKPOINT) in str(missing.value)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{weights} is damaged"):
        Fid([weights.parent])


def test_a_pickle_with_code_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / CHECKPOINT
    torch.save({"weights": Path("anything")}, path)
    monkeypatch.setattr(inception, "_hash_prefix", lambda: "")
    with pytest.raises(ValueError, match="holds more than tensors and was not opened"):
        Fid([tmp_path])
