"""CLIPScore, CMMD, FID and the AlexNet Fréchet distance over drawn pictures."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unlearning_core import files
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.evaluation import Candidate, evaluate
from unlearning_core.metrics.inception import CHECKPOINT, Fid, InceptionNotFound
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import Plan, PromptSeed
from unlearning_core.metrics.quality import Networks, Quality, measure_quality
from unlearning_core.metrics.retention import Comparison
from unlearning_core.reports.tables import quality_page

RETAIN = ["a car in noto style", "a house"]
PLAN = Plan.of(RETAIN, ["a frog"], 0, 3, 2)


def painted(prompt_seeds: Sequence[PromptSeed], change: float = 0.0) -> Tensor:
    pictures = [torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(seed)) for _, seed in prompt_seeds]
    return torch.lerp(torch.stack(pictures), torch.tensor(0.5), change)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.load(SHIPPED_FOLDER)


def run(change: float, clip: Clip, fid: Fid | None = None, plan: Plan = PLAN) -> Quality:
    networks = Networks(Lpips("alex"), clip, fid)
    return measure_quality(painted, lambda prompt_seeds: painted(prompt_seeds, change), networks, plan, {})


def test_the_figures_grow_with_the_change_and_are_zero_without(clip: Clip) -> None:
    same, near, far = (run(change, clip) for change in (0.0, 0.2, 0.8))
    assert same.frechet_alexnet == pytest.approx(0, abs=1e-6) and same.cmmd == pytest.approx(0, abs=1e-6)
    assert 0 < near.frechet_alexnet < far.frechet_alexnet
    assert same.clip_score.unlearned == same.clip_score.base
    assert far.forget_clip_score and far.forget_clip_score.unlearned != far.forget_clip_score.base
    assert far.fid is None
    summary = json.loads(json.dumps(far.summary(), allow_nan=False))
    assert summary["settings"] == {"CLIP": "shipped", "seeds": "0 to 2", "forget seeds": "0 to 1"}
    assert summary["plan"]["retain"] == RETAIN and summary["plan"]["seeds"] == [0, 1, 2]
    assert "FID" not in quality_page(far)
    assert "FD (AlexNet)" in quality_page(far)


def test_one_picture_is_too_few_and_nothing_is_drawn(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "painted", lambda prompt_seeds, change=0.0: pytest.fail("drawn"))
    with pytest.raises(ValueError, match="retain prompts: a Fréchet distance needs two pictures"):
        run(0.1, clip, plan=Plan.of(["a car"], [], 0, 1, 1))


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
    monkeypatch.setattr(files, "hash_prefix", lambda path: digest[:8])
    return path


def test_fid_is_zero_for_equal_pictures_and_grows_with_the_change(weights: Path, clip: Clip) -> None:
    fid = Fid([weights.parent])
    same, near, far = (run(change, clip, fid).fid for change in (0.0, 0.2, 0.9))
    assert same == pytest.approx(0, abs=1e-9)
    assert same is not None and near is not None and far is not None
    assert same < near < far


def test_fid_is_torchmetrics_fid(weights: Path, clip: Clip) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(normalize=True, feature_extractor_weights_path=str(weights))
    for change in (0.0, 0.9):
        metric.update(painted(PLAN.retain_prompt_seeds, change).permute(0, 3, 1, 2), real=not change)
    assert run(0.9, clip, Fid([weights.parent])).fid == pytest.approx(metric.compute().item(), rel=1e-3)


def test_each_models_fid_is_what_it_is_alone(weights: Path, clip: Clip) -> None:
    networks = Networks(Lpips("alex"), clip, Fid([weights.parent]))
    models = {name: Candidate(partial(painted, change=change), {}) for name, change in (("far", 0.9), ("near", 0.2))}
    together = evaluate(painted, models, Comparison(networks.alexnet, PLAN), networks, {}, painted)
    alone = {"near": run(0.2, clip, networks.fid).fid, "far": run(0.9, clip, networks.fid).fid}
    assert {entry.name: entry.quality.fid for entry in together} == alone


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
    monkeypatch.setattr(files, "hash_prefix", lambda path: "")
    with pytest.raises(ValueError, match="holds more than tensors and was not opened"):
        Fid([tmp_path])
