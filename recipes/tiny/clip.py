"""How the shipped open_clip model was trained: `python -m recipes.tiny.clip --work DIR`, minutes on one core.

A small CLIP (Radford et al. 2021, arXiv 2103.00020) of the emoji world, so that CLIPScore and the zero-shot judge run
without a download. It is an open_clip folder: config, fp16 safetensors and the tokenizer of the shipped model.
"""

from __future__ import annotations

import argparse
import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from recipes.tiny.pictures import fetch_icons, training_pictures
from recipes.tiny.tokenizer import MAX_LENGTH, make_tokenizer
from recipes.tiny.train import cached_pictures, to_range, train
from unlearning_core.files import write_atomically
from unlearning_core.metrics.clip import SHIPPED_FOLDER, Clip
from unlearning_core.tiny.world import CONCEPTS, FRAMES, PLACES, STYLES, names, prompt, prompts, vocabulary

log = logging.getLogger(__name__)

STEPS, LR = 1500, 1e-3
IMAGE_SIZE = 64
SHIFT = 4  # pixels, at most
SOFTEST = 16  # side that a picture is at most scaled down to and up again, because generated pictures are soft
NOISE = 0.05  # standard deviation, at most
UNSEEN = 8  # pictures of every (concept, style) that it is tested on


def configuration() -> dict[str, Any]:
    """The content of open_clip_config.json."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
            "text_cfg": {
                "context_length": MAX_LENGTH,
                "vocab_size": len(make_tokenizer(vocabulary())),
                "hf_tokenizer_name": "local",  # open_clip reads the tokenizer from this folder when this is set
                "width": 96,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {
            "size": IMAGE_SIZE,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def main() -> None:
    """Trains, writes the folder, and reports how it reads unseen pictures."""
    parser = argparse.ArgumentParser(description="Train the shipped open_clip model.")
    parser.add_argument("--work", type=Path, required=True, help="folder for icons, checkpoints and logs")
    parser.add_argument("--out", type=Path, default=SHIPPED_FOLDER, help="open_clip folder to write")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args.work.mkdir(parents=True, exist_ok=True)
    save_folder(args.out, train_clip(torch.from_numpy(cached_pictures(args.work)), args.work))

    unseen = torch.from_numpy(training_pictures(fetch_icons(args.work), UNSEEN, seed=1)).flatten(0, 2) / 255
    images = Clip.load(args.out).embed_pictures(unseen)
    for name, (kind, captions, labels) in ((place, group) for place in PLACES for group in groups(UNSEEN, place)):
        texts = Clip.load(args.out).embed_prompts(captions)
        right = ((images @ texts.T).argmax(1) == labels).double().mean().item()
        log.info("%s, name %d: right on %d unseen pictures: %.4f", kind, name, len(images), right)


def groups(count: int = 1, name: int = 0, frame: str = FRAMES[0]) -> list[tuple[str, list[str], Tensor]]:
    """Three sets of captions, and which of each is right for `count` pictures of each (concept, style), in order.

    Of each concept they have the name of this place in `names`.
    """
    concept = torch.arange(len(CONCEPTS)).repeat_interleave(len(STYLES)).repeat_interleave(count)
    style = torch.arange(len(STYLES)).repeat(len(CONCEPTS)).repeat_interleave(count)
    return [
        ("concept and style", prompts(name, frame), concept * len(STYLES) + style),
        ("concept", [prompt(names(c)[name], frame=frame) for c in CONCEPTS], concept),
        ("style", [prompt(style=s) for s in STYLES], style),
    ]


def train_clip(pictures: Tensor, work: Path) -> torch.nn.Module:
    """From uint8 pictures [concepts, styles, count, H, W, 3]: each step sees one picture of every (concept, style)."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(**configuration()["model_cfg"])
    small = torch.cat([shrink(to_range(batch)) for batch in pictures.flatten(0, 2).split(512)])
    small = small.view(len(CONCEPTS) * len(STYLES), -1, *small.shape[1:])
    tokenizer = make_tokenizer(vocabulary())
    captions = groups()
    wordings = [
        [caption for _, texts, _ in groups(name=name, frame=frame) for caption in texts]
        for name, frame in product(PLACES, FRAMES)
    ]
    tokens = torch.stack(
        [
            tokenizer(texts, padding="max_length", max_length=MAX_LENGTH, return_tensors="pt").input_ids
            for texts in wordings
        ]
    )

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(small.shape[1], (len(small),), generator=generator)
        images = model.encode_image(varied(small[torch.arange(len(small)), index], generator), normalize=True)
        chosen = torch.randint(len(tokens), (tokens.shape[1],), generator=generator)
        texts = model.encode_text(tokens[chosen, torch.arange(tokens.shape[1])], normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T
        parts = logits.split([len(texts) for _, texts, _ in captions], dim=1)
        return sum(
            (both_ways(part, right) for part, (_, _, right) in zip(parts, captions, strict=True)), torch.zeros(())
        )

    return train("clip", work, torch.nn.ModuleDict({"clip": model}), loss_of, STEPS, LR)["clip"]


def both_ways(logits: Tensor, right: Tensor) -> Tensor:
    """Cross-entropy of each picture over captions and of each caption over its pictures: [pictures, captions]."""
    matches = F.one_hot(right, logits.shape[1]).to(logits)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, (matches / matches.sum(0)).T)) / 2


def shrink(pictures: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 3, IMAGE_SIZE, IMAGE_SIZE], both in 0..1."""
    return F.interpolate(pictures, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True).clamp(0, 1)


def varied(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted, softened and noisy pictures [B, 3, H, W], from 0..1 to -1..1."""
    dy, dx, side = (
        torch.randint(low, high, (), generator=generator).item()
        for low, high in ((-SHIFT, SHIFT + 1), (-SHIFT, SHIFT + 1), (SOFTEST, 2 * IMAGE_SIZE))
    )
    if side < IMAGE_SIZE:
        soft = F.interpolate(pictures, (int(side), int(side)), mode="bilinear", antialias=True)
        pictures = F.interpolate(soft, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    strength = NOISE * torch.rand(len(pictures), 1, 1, 1, generator=generator)
    noise = torch.randn(pictures.shape, generator=generator)
    return (pictures.roll((int(dy), int(dx)), (2, 3)) + strength * noise) * 2 - 1


def save_folder(folder: Path, model: torch.nn.Module) -> None:
    """Config, weights in fp16 and tokenizer, as open_clip's `local-dir:` reads them."""
    make_tokenizer(vocabulary()).save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(configuration(), indent=2) + "\n")
    weights = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    with write_atomically(folder / "open_clip_model.safetensors") as partial:
        save_file(weights, partial)


if __name__ == "__main__":
    main()
