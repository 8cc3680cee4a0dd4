"""How the references of the shipped model's judge were made: `python -m recipes.tiny.judge --icons DIR`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from recipes.tiny.pictures import fetch_icons, training_pictures
from unlearning_core.files import write_atomically
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.tiny.judge import REFERENCES, Judge, features
from unlearning_core.tiny.world import CONCEPTS, STYLES, prompts

log = logging.getLogger(__name__)

PICTURES_EACH = 48  # of every (concept, style)


def main() -> None:
    """Makes the references, then judges as many new pictures."""
    parser = argparse.ArgumentParser(description="Make the references of the shipped model's judge.")
    parser.add_argument("--icons", type=Path, required=True, help="folder for the icon sets, which npm fetches")
    parser.add_argument("--out", type=Path, default=REFERENCES)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    icons = fetch_icons(args.icons)
    make_references(torch.from_numpy(training_pictures(icons, PICTURES_EACH)), args.out)
    unseen = torch.from_numpy(training_pictures(icons, PICTURES_EACH, seed=1)).flatten(0, 2) / 255
    captions = [caption for caption in prompts() for _ in range(PICTURES_EACH)]
    accuracy = Judge.load(args.out).accuracy(unseen, captions)
    log.info("%s: concept %.4f, style %.4f on %d new pictures", args.out, *accuracy, len(unseen))


def make_references(pictures: Tensor, path: Path = REFERENCES, folders: Sequence[Path] = ()) -> None:
    """Writes the mean features of uint8 pictures [concepts, styles, count, H, W, 3], in the world's order, as fp16."""
    flat = pictures.flatten(0, 2)
    rows = torch.cat([*features(Lpips("alex", folders), flat)])
    references = rows.view(*pictures.shape[:3], -1).mean(2).half()
    names = {"concepts": json.dumps([*CONCEPTS]), "styles": json.dumps([*STYLES])}
    with write_atomically(path) as partial:
        save_file({"references": references}, partial, names)


if __name__ == "__main__":
    main()
