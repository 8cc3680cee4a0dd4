"""The shipped open_clip model, CLIPScore and CMMD."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from recipes.tiny.clip import groups
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip, ClipNotFound, clip_named, cmmd
from unlearning_core.tiny.world import SIZE, prompts

SHEET = Path(__file__).parents[1] / "data" / "judge" / "pictures.webp"


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.load(SHIPPED_FOLDER)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """One picture of each (concept, style) that the model was not trained on: [72, 128, 128, 3] in 0..1."""
    pixels = torch.from_numpy(np.array(Image.open(SHEET).convert("RGB")))
    tiles = pixels.unflatten(1, (-1, SIZE)).unflatten(0, (-1, SIZE)).transpose(1, 2)
    return tiles.flatten(0, 1) / 255


def test_the_shipped_model_is_small_and_reads_unseen_pictures(clip: Clip, pictures: Tensor) -> None:
    assert sum(path.stat().st_size for path in SHIPPED_FOLDER.iterdir()) <= 4 * 2**20
    images = clip.embed_pictures(pictures)
    for _, captions, right in groups():
        found = (images @ clip.embed_prompts(captions).T).argmax(1)
        assert (found == right).double().mean() >= 0.95


def test_clip_score_prefers_the_own_prompt(clip: Clip, pictures: Tensor) -> None:
    images = clip.embed_pictures(pictures)
    own = clip.scores(images, prompts())
    other = clip.scores(images, prompts()[36:] + prompts()[:36])
    assert (own > other).all()
    assert other.min() >= 0 and own.max() <= 100


def test_against_torchmetrics(clip: Clip, pictures: Tensor) -> None:
    """torchmetrics' CLIPScore, handed our model behind the interface of transformers."""
    from torchmetrics.functional.multimodal import clip_score

    class Features(torch.nn.Module):
        config = SimpleNamespace()

        def get_image_features(self, pixels: Tensor) -> Tensor:
            return clip.embed_pictures(pixels)

        def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
            return clip.embed_prompts([prompts()[index] for index in ids.tolist()])

    class Processor:
        def __call__(self, text: Any = None, images: Any = None, **options: Any) -> dict[str, Tensor]:
            if images is not None:
                return {"pixel_values": torch.stack(images).permute(0, 2, 3, 1)}
            ids = torch.tensor([prompts().index(line) for line in text])
            return {"input_ids": ids, "attention_mask": ids}

    some = [0, 20, 40]
    expected = clip_score(
        pictures[some].permute(0, 3, 1, 2),
        [prompts()[index] for index in some],
        lambda: (Features(), Processor()),
    )
    scores = clip.scores(clip.embed_pictures(pictures[some]), [prompts()[index] for index in some])
    assert scores.mean().item() == pytest.approx(expected.item(), abs=1e-3)


def test_the_batch_does_not_change_an_embedding(clip: Clip, pictures: Tensor) -> None:
    together, alone = clip.embed_pictures(pictures)[5], clip.embed_pictures(pictures[5:6])[0]
    # A picture alone may take other kernels than one among others: a few roundings (1e-7) of a unit vector.
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_cmmd_by_hand() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert cmmd(x, y) == pytest.approx(1000 * (2 - 2 * math.exp(-2 / 200)))
    assert cmmd(x.repeat(3, 1), x) == pytest.approx(0, abs=1e-9)  # fp64 means of 9, 3 and 1 values, times 1000
    with pytest.raises(ValueError, match="at least one picture"):
        cmmd(x, y[:0])


def test_cmmd_grows_with_the_share_of_other_pictures(clip: Clip, pictures: Tensor) -> None:
    images = clip.embed_pictures(pictures)
    mixed = [cmmd(images[:24], torch.cat([images[count:24], images[48 : 48 + count]])) for count in (0, 6, 12, 24)]
    assert mixed[0] == pytest.approx(0, abs=1e-9)
    assert mixed == sorted(mixed)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED_FOLDER, tmp_path / "copied"))


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_config.json"])
def test_a_missing_file_is_named(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(ClipNotFound, match=f"the CLIP model in {copied} lacks {name}"):
        Clip.load(copied)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def fill(path: Path) -> None:
    path.write_bytes(b"not a model")


@pytest.mark.parametrize("damage", [cut, fill])
def test_a_damaged_file_is_named(copied: Path, damage: Callable[[Path], None]) -> None:
    path = copied / "open_clip_model.safetensors"
    damage(path)
    with pytest.raises(ValueError, match="damaged") as error:
        Clip.load(copied)
    assert str(path) in str(error.value)


def test_pretrained_weights_that_are_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ClipNotFound, match="ViT-B-32 needs the weights laion2b_s34b_b79k"):
        Clip.pretrained("ViT-B-32", "laion2b_s34b_b79k", cache=tmp_path)
    with pytest.raises(ClipNotFound, match=r"'nothing.safetensors': no such file, and ViT-B-32's tags are openai"):
        Clip.pretrained("ViT-B-32", "nothing.safetensors")
    with pytest.raises(ValueError, match="no model called 'ViT-Z'"):
        Clip.pretrained("ViT-Z", "openai")


def test_a_local_file_that_is_no_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    fill(path)
    with pytest.raises(ValueError, match="damaged") as error:
        Clip.pretrained("RN50", path)
    assert str(path) in str(error.value)


def test_nan_pictures_are_refused(clip: Clip) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, got nan"):
        clip.embed_pictures(torch.full((1, 64, 64, 3), torch.nan))


def test_a_prompt_too_few_is_refused(clip: Clip, pictures: Tensor) -> None:
    with pytest.raises(ValueError, match="got 1 for 2"):
        clip.scores(clip.embed_pictures(pictures[:2]), ["a frog"])


def test_models_by_name(copied: Path) -> None:
    assert clip_named("shipped")("cpu").name == "shipped"
    assert clip_named("copied", [copied.parent])("cpu").name == "copied"
    with pytest.raises(ClipNotFound, match="RN50's tags are openai"):
        clip_named("RN50 nothing", [copied.parent])("cpu")


@pytest.mark.parametrize("text", ["", "other", "RN50", "../copied", "RN50 ../weights.safetensors"])
def test_other_names_are_refused(copied: Path, text: str) -> None:
    with pytest.raises(ValueError, match="CLIP model: "):
        clip_named(text, [copied.parent / "inside"])
