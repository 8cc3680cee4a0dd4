"""Zero-shot CLIP and the diffusion classifier on pictures of the shipped model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unlearning_core.hosts.base import DiffusersModel
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.metrics.forgetting import Accuracies, Judge, accuracies
from unlearning_core.metrics.judges import ClipJudge, DiffusionClassifier, parse_domains
from unlearning_core.sampling import Sampling
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.world import CONCEPTS, STYLES, prompt

LABELS = f"a {{}}: {', '.join(CONCEPTS)}\n{{}} style: {', '.join(STYLES)}"
PROMPTS = [prompt(concept, list(STYLES)[index % 3]) for index, concept in enumerate(CONCEPTS)]


@pytest.fixture(scope="module")
def model() -> DiffusersModel:
    return load(MODEL)


@pytest.fixture(scope="module")
def pictures(model: DiffusersModel) -> Tensor:
    """A base picture of each of the 24 concepts."""
    return draw(model, [(text, 0) for text in PROMPTS], Sampling(steps=15, cfg=3.0, width=128, height=128))


@pytest.fixture(scope="module")
def classifier(model: DiffusersModel) -> DiffusionClassifier:
    return DiffusionClassifier(model, model.latents, parse_domains(LABELS))


@pytest.fixture(scope="module")
def clip_judge() -> ClipJudge:
    return ClipJudge(Clip.load(SHIPPED_FOLDER), parse_domains(LABELS))


def base_accuracies(judge: Judge, pictures: Tensor) -> Accuracies:
    return accuracies(judge, pictures, PROMPTS, [PROMPTS[0]])


def test_the_diffusion_classifier_knows_nine_in_ten_of_24_concepts(
    classifier: DiffusionClassifier, pictures: Tensor
) -> None:
    right = classifier.classify(pictures, ["a {}"])["a {}"]
    assert sum(found == concept for found, concept in zip(right, CONCEPTS, strict=True)) >= 0.9 * len(CONCEPTS)


def test_clip_knows_nine_in_ten(clip_judge: ClipJudge, pictures: Tensor) -> None:
    found = base_accuracies(clip_judge, pictures)
    assert found.right is not None and found.right >= 0.9
    assert found.cra is not None and found.cra >= 0.9
    assert found.ua == 0


def test_verdicts_do_not_depend_on_the_batch(
    classifier: DiffusionClassifier, clip_judge: ClipJudge, pictures: Tensor
) -> None:
    for judge in (classifier, clip_judge):
        together = judge.classify(pictures[:3], ["{} style"])["{} style"]
        alone = [judge.classify(picture[None], ["{} style"])["{} style"][0] for picture in pictures[:3]]
        assert together == alone


def test_the_classifier_draws_nothing_from_the_global_generator(
    classifier: DiffusionClassifier, pictures: Tensor
) -> None:
    before = torch.get_rng_state()
    classifier.classify(pictures[:1], ["{} style"])
    assert torch.equal(torch.get_rng_state(), before)


def test_domains_are_lines_of_a_caption_and_labels() -> None:
    assert parse_domains("a photo of a {}: cat, dog , cat\n\nby {} : Monet, van Gogh") == {
        "a photo of a {}": ("cat", "dog"),
        "by {}": ("Monet", "van Gogh"),
    }


@pytest.mark.parametrize("text", ["", "cat, dog", "a photo: cat, dog", "a {}: cat", "a {}: "])
def test_labels_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="labels: "):
        parse_domains(text)
