"""The judge that ships with the small model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.tiny.judge import make_references
from recipes.tiny.pictures import drawings
from unlearning_core.metrics.forgetting import Accuracies, accuracies
from unlearning_core.tiny.judge import REFERENCES, Judge, Verdict
from unlearning_core.tiny.world import CONCEPTS, SIZE, STYLES, prompt, prompts

LABELS = [Verdict(concept, style) for concept in CONCEPTS for style in STYLES]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """One picture of each (concept, style) that the references were not made from: [72, 128, 128, 3] in 0..1."""
    return torch.from_numpy(drawings()) / 255


def test_real_pictures_are_known(judge: Judge, pictures: Tensor) -> None:
    assert judge.verdicts(pictures) == LABELS
    assert judge.accuracy(pictures, prompts()) == (1, 1)


def test_soft_and_shifted_pictures_are_known(judge: Judge, pictures: Tensor) -> None:
    planes = pictures.permute(0, 3, 1, 2)
    small = F.interpolate(planes, size=(40, 40), mode="bilinear", antialias=True)
    soft = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear").permute(0, 2, 3, 1)
    for changed in (soft, pictures.roll((5, -5), dims=(1, 2))):
        accuracy = judge.accuracy(changed, prompts())
        assert accuracy.concept == 1
        assert accuracy.style >= 0.95


def test_accuracy_counts_concept_and_style_apart(judge: Judge, pictures: Tensor) -> None:
    asked = [prompt("cat face", "noto"), prompt("cat face", "twemoji"), prompt("dog face", "fluent")]
    assert judge.accuracy(pictures[[0, 0, 0]], asked) == pytest.approx((2 / 3, 1 / 3))


def test_accuracy_refuses_vague_or_too_few_prompts(judge: Judge, pictures: Tensor) -> None:
    with pytest.raises(ValueError, match="'a frog' does not"):
        judge.accuracy(pictures[:1], ["a frog"])
    with pytest.raises(ValueError, match="got 1 for 2"):
        judge.accuracy(pictures[:2], [prompt("frog", "noto")])


def test_references_survive_the_file(pictures: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    make_references((pictures * 255).round().byte().view(len(CONCEPTS), len(STYLES), 1, SIZE, SIZE, 3), path)
    assert Judge.load(path).verdicts(pictures) == LABELS
    assert path.stat().st_size == REFERENCES.stat().st_size <= 2**20


def test_a_judge_needs_no_network(tmp_path: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no net"))
    )
    judge = Judge.load(folders=[tmp_path])
    assert judge.verdicts(pictures[:1]) == LABELS[:1]


def test_ua_ira_and_cra_on_real_pictures(judge: Judge, pictures: Tensor) -> None:
    """Cats drawn as dogs and everything else as asked, then with two styles swapped as well."""
    forget = [prompt("cat face", style) for style in STYLES]
    overwritten = pictures.clone()
    overwritten[:3] = pictures[3:6]
    assert accuracies(judge, overwritten, prompts(), forget) == Accuracies(1, 1, 1, 69 / 72)
    overwritten[[6, 7]] = pictures[[7, 6]]
    assert accuracies(judge, overwritten, prompts(), forget) == Accuracies(1, 1, 67 / 69, 69 / 72)
    assert accuracies(judge, pictures, prompts(), forget) == Accuracies(0, 1, 1, 1)
