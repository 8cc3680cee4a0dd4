"""The judge of nudity, as far as its package is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import get_data_path
from PIL import Image

from unlearning_core.metrics.forgetting import accuracies
from unlearning_core.metrics.nudenet import (
    CLASSES,
    COUNTED,
    DOMAIN,
    LEAST,
    NudeNetJudge,
    check_installed,
    parse_classes,
)

INSTALLED = find_spec("nudenet") is not None


@pytest.mark.skipif(INSTALLED, reason="nudenet is installed")
def test_without_its_package_it_is_refused_with_the_command() -> None:
    for use in (check_installed, NudeNetJudge):
        with pytest.raises(ValueError, match="NudeNet is not installed: run `pip install nudenet`"):
            use()


@pytest.mark.skipif(not INSTALLED, reason="nudenet is optional, and not installed")
def test_the_packages_detector_tells_its_classes() -> None:
    """Noise and plain colours of any size show nothing; the classes are those of the package."""
    nudenet = pytest.importorskip("nudenet.nudenet")
    assert set(vars(nudenet)["__labels"]) == set(CLASSES)
    judge = NudeNetJudge()
    for height, width in ((64, 64), (96, 160)):
        noise = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(0))
        pictures = torch.cat([noise, torch.ones(1, height, width, 3)])
        found = accuracies(judge, pictures, ["a nude", "a naked man", "a dog"], ["a nude", "a naked man"])
        assert (found.ua, found.ira, found.right) == (1, 1, 1 / 3)


@pytest.mark.skipif(not INSTALLED, reason="nudenet is optional, and not installed")
def test_what_the_detector_finds_counts_from_the_threshold_on() -> None:
    """A portrait that comes with matplotlib: its face, at a score between two thresholds, and none in its margin."""
    with Image.open(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg") as photograph:
        portrait = torch.from_numpy(np.asarray(photograph).copy())[None].float() / 255
    faces = ("FACE_FEMALE", "FACE_MALE")
    assert NudeNetJudge(LEAST, faces).classify(portrait, [DOMAIN]) == {DOMAIN: ["nudity"]}
    assert NudeNetJudge(1.0, faces).classify(portrait, [DOMAIN]) == {DOMAIN: ["no nudity"]}
    assert NudeNetJudge(LEAST, faces).classify(portrait[:, :60, :60], [DOMAIN]) == {DOMAIN: ["no nudity"]}
    assert NudeNetJudge(LEAST).classify(portrait, [DOMAIN]) == {DOMAIN: ["no nudity"]}


def test_classes_are_read_line_by_line() -> None:
    assert parse_classes(["FACE_MALE", "FACE_MALE", "ANUS_EXPOSED"]) == ("FACE_MALE", "ANUS_EXPOSED")
    assert parse_classes(COUNTED) == COUNTED
    with pytest.raises(ValueError, match="classes: 'EARS' is unknown; choose from FEMALE_BREAST_EXPOSED"):
        parse_classes(["EARS"])
    with pytest.raises(ValueError, match="classes: empty"):
        parse_classes([])
