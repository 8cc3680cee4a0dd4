"""Pictures and prompts in one space: open_clip models, CLIPScore and CMMD."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from .lpips import check_values
from .plan import batches

CMMD_SIGMA = 10.0  # of the RBF kernel, and the scale of the result: Jayasumana et al. 2024 (arXiv 2401.09603)
CMMD_SCALE = 1000.0
ROWS = 1024  # pictures that are compared with all others at once
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"  # of an open_clip folder
SHIPPED = "shipped"
SHIPPED_FOLDER = Path(__file__).parents[1] / "tiny" / "clip"

MakeRoom = Callable[[int], object]


class ClipNotFound(FileNotFoundError):
    """An open_clip model's weights are neither on this machine nor within reach."""


class Clip:
    """An open_clip model in fp32, which is on `device` only while it computes. `name` says which, for a report."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        device: str | torch.device = "cpu",
        make_room: MakeRoom | None = None,
    ) -> None:
        """`make_room` is told the weights' size in bytes before they move to another device than the CPU."""
        self.name = name
        self.device = torch.device(device)
        self._model = model.cpu().eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._make_room = make_room
        cfg = model.visual.preprocess_cfg
        self._size = (cfg["size"], cfg["size"]) if isinstance(cfg["size"], int) else tuple(cfg["size"])
        self._mode = cfg["interpolation"]
        self._squash = cfg["resize_mode"] == "squash"
        self._mean, self._std = (torch.tensor(cfg[key], device=self.device).view(3, 1, 1) for key in ("mean", "std"))

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu", make_room: MakeRoom | None = None) -> Clip:
        """From an open_clip folder: open_clip_config.json, weights in safetensors, tokenizer; nothing is downloaded.

        Raises ClipNotFound when a file is missing, and ValueError when one is damaged.
        """
        check_folder(folder)
        name = SHIPPED if folder == SHIPPED_FOLDER else folder.name
        return cls(name, *_create(f"local-dir:{folder}", None, folder / WEIGHTS), device, make_room)

    @classmethod
    def pretrained(
        cls,
        model: str,
        weights: str | Path,
        device: str | torch.device = "cpu",
        make_room: MakeRoom | None = None,
        cache: Path | None = None,
    ) -> Clip:
        """open_clip's `model`, such as ViT-B-32, with a tag of its list, such as laion2b_s34b_b79k, or a file's Path.

        A tag is looked for in `cache` (the Hugging Face cache by default) and then downloaded. Raises ValueError for
        an unknown model or a damaged file, and ClipNotFound for weights that are not to be had.
        """
        check_pretrained(model, weights)
        file = weights if isinstance(weights, Path) else None
        name = file.name if file else weights
        return cls(f"{model} {name}", *_create(model, str(weights), file, cache), device, make_room)

    @torch.no_grad()
    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """[B, H, W, 3] in 0..1 -> unit vectors [B, D] on the CPU. Raises ValueError for NaN or values outside 0..1."""
        check_values(pictures)
        with self._on_device() as model:
            embedded = (model.encode_image(self._prepared(batch), normalize=True) for batch in batches(pictures))
            return torch.cat([batch.cpu() for batch in embedded])

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors [len(prompts), D] on the CPU."""
        tokens = self._tokenizer(list(prompts)).to(self.device)
        with self._on_device() as model:
            return model.encode_text(tokens, normalize=True).cpu()

    def scores(self, embedded: Tensor, prompts: Sequence[str]) -> Tensor:
        """CLIPScore (Hessel et al. 2021, arXiv 2104.08718) of embedded pictures [B, D] and the prompt of each: [B].

        100 max(cos, 0), torchmetrics' scale: 100 is the same direction. Raises ValueError when the counts differ.
        """
        if len(embedded) != len(prompts):
            raise ValueError(f"CLIPScore needs one prompt for each picture, got {len(prompts)} for {len(embedded)}")
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        texts = self.embed_prompts(list(places))
        return 100 * (embedded * texts[[places[prompt] for prompt in prompts]]).sum(1).clamp(min=0)

    @contextmanager
    def _on_device(self) -> Iterator[Any]:
        if self._make_room and self.device.type != "cpu":
            self._make_room(sum(value.nbytes for value in self._model.state_dict().values()))
        try:
            yield self._model.to(self.device)
        finally:
            self._model.cpu()

    def _prepared(self, pictures: Tensor) -> Tensor:
        """Resized, cropped and normalized as the model was trained: [B, H, W, 3] -> [B, 3, h, w]."""
        planes = pictures.to(self.device, torch.float32).permute(0, 3, 1, 2)
        height, width = self._size
        if not self._squash:
            scale = max(height / planes.shape[2], width / planes.shape[3])
            planes = _resized(planes, (round(planes.shape[2] * scale), round(planes.shape[3] * scale)), self._mode)
            top, left = (planes.shape[2] - height) // 2, (planes.shape[3] - width) // 2
            planes = planes[:, :, top : top + height, left : left + width]
        return (_resized(planes, (height, width), self._mode) - self._mean) / self._std


def clip_named(text: str, folders: Sequence[Path] = ()) -> Callable[..., Clip]:
    """What makes the CLIP model that `text` names, from `device` and `make_room` of `Clip`.

    `shipped` is the emoji world's. Otherwise an open_clip folder in one of `folders`, or an open_clip model and its
    weights, such as `ViT-B-32 laion2b_s34b_b79k`: a tag, or the name of a file in one of `folders`. Raises ValueError
    for text of another form, an unknown model or a name that leads out of the folders, and ClipNotFound when there is
    no such tag or file, or a folder lacks one of its own.
    """
    if text == SHIPPED:
        return partial(Clip.load, SHIPPED_FOLDER)
    name, _, weights = text.strip().partition(" ")
    wanted = weights.strip() or name
    if not wanted or wanted == ".." or Path(wanted).name != wanted:
        raise ValueError(f"CLIP model: {wanted!r} must be a plain name, of something in the models folder")
    found = next((folder / wanted for folder in folders if (folder / wanted).exists()), None)
    if weights:
        source = found or wanted
        check_pretrained(name, source)
        return partial(Clip.pretrained, name, source)
    if found is None or not found.is_dir():
        raise ValueError(
            f"CLIP model: {text!r} is neither {SHIPPED!r}, nor an open_clip folder in {', '.join(map(str, folders))}, "
            "nor a model with its weights such as 'ViT-B-32 laion2b_s34b_b79k'"
        )
    check_folder(found)
    return partial(Clip.load, found)


def check_folder(folder: Path) -> None:
    """Raises ClipNotFound when an open_clip folder lacks a file."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ClipNotFound(f"the CLIP model in {folder} lacks {name}")


def check_pretrained(model: str, weights: str | Path) -> None:
    """Raises ValueError when open_clip has no such model or the file may hold code, ClipNotFound for no tag or file."""
    import open_clip

    if model not in open_clip.list_models():
        raise ValueError(f"open_clip has no model called {model!r}: choose one of open_clip.list_models()")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights not in tags and not (isinstance(weights, Path) and weights.is_file()):
        raise ClipNotFound(f"CLIP weights {str(weights)!r}: no such file, and {model}'s tags are {', '.join(tags)}")
    if isinstance(weights, Path) and _holds_code(weights):
        raise ValueError(
            f"the CLIP weights {weights} are a TorchScript program, which can run code when opened; it was not "
            "opened. Use weights in safetensors"
        )


def cmmd(first: Tensor, second: Tensor) -> float:
    """CMMD (Jayasumana et al. 2024, arXiv 2401.09603) of two sets of CLIP embeddings, unit vectors [N, D] and [M, D].

    The maximum mean discrepancy under an RBF kernel, with the authors' kernel width, scale and (biased) estimator, so
    equal sets are at 0. Raises ValueError for an empty set.
    """
    if not len(first) or not len(second):
        raise ValueError("CMMD needs at least one picture in each set")
    x, y = first.double(), second.double()
    return CMMD_SCALE * (_kernel_mean(x, x) + _kernel_mean(y, y) - 2 * _kernel_mean(x, y))


def _kernel_mean(x: Tensor, y: Tensor) -> float:
    parts = (torch.exp(-torch.cdist(rows, y).square() / (2 * CMMD_SIGMA**2)) for rows in x.split(ROWS))
    return sum(part.sum().item() for part in parts) / (len(x) * len(y))


def _resized(planes: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """[B, 3, H, W] -> [B, 3, *size], as Pillow resizes."""
    return F.interpolate(planes, size, mode=mode, antialias=True).clamp(0, 1)


def _holds_code(path: Path) -> bool:
    """Whether the file is a TorchScript archive, as OpenAI's .pt files are."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _create(model: str, weights: str | None, file: Path | None, cache: Path | None = None) -> tuple[Any, Any]:
    """open_clip's model and tokenizer; `file` is what a message names."""
    import open_clip

    try:
        created = open_clip.create_model(
            model, weights, cache_dir=str(cache) if cache else None, weights_only=True, require_pretrained=True
        )
        return created, open_clip.get_tokenizer(model)
    except (SafetensorError, pickle.UnpicklingError, EOFError, KeyError) as error:
        raise ValueError(
            f"the CLIP weights {file or weights} are damaged: copy or fetch them again ({error})"
        ) from error
    except (OSError, RuntimeError) as error:
        if file:
            raise ValueError(f"the CLIP weights {file} do not fit {model} or are damaged ({error})") from error
        raise ClipNotFound(
            f"CLIP {model} needs the weights {weights}, which are not on this machine and could not be downloaded "
            f"({error}); give a local file instead, or the shipped model"
        ) from error
