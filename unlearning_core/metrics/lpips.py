"""LPIPS (Zhang, Isola, Efros, Shechtman and Wang 2018, arXiv 1801.03924), version 0.1, on pictures in memory."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .backbones import BACKBONES, backbone_named, load_features
from .plan import batches


class Lpips:
    """LPIPS in fp32 on one backbone: alex, vgg or squeeze.

    `folders` are searched for the backbone's weights before the caches (see `backbones.load_features`, whose errors
    it raises). The weights are loaded here, so make one object and keep it.
    """

    def __init__(self, backbone: str = "alex", folders: Sequence[Path] = (), device: str | torch.device = "cpu"):
        backbone_named(backbone)
        self.backbone = backbone
        self.device = torch.device(device)
        self._net = _network(backbone, load_features(backbone, folders)).to(self.device)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The LPIPS distance of each pair of pictures: two [B, H, W, 3] in 0..1 -> [B] on the CPU; 0 is the same.

        Pictures are compared at the size they have. Raises ValueError when the shapes differ, a value is NaN or
        outside 0..1, or a side is too small for the backbone.
        """
        return torch.cat([values.flatten() for values in self._batches(a, b, spatial=False)])

    def heat_map(self, a: Tensor, b: Tensor) -> Tensor:
        """Where each pair of pictures differs: two [B, H, W, 3] in 0..1 -> [B, H, W] on the CPU.

        Its mean is about `distance`: each layer is brought up to picture size before the layers are added. Raises
        as `distance` does.
        """
        return torch.cat([values.squeeze(1) for values in self._batches(a, b, spatial=True)])

    def activations(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """The backbone's activations: [B, H, W, 3] in 0..1 -> a [B, C, h, w] for each LPIPS layer, on `device`.

        Raises ValueError for another shape, a value that is NaN or outside 0..1, or a side that is too small.
        """
        _check(pictures, self.backbone)
        with torch.no_grad(), _exact_convolutions():
            return tuple(self._net.net(self._net.scaling_layer(self._planes(pictures))))

    def _batches(self, a: Tensor, b: Tensor, spatial: bool) -> Iterator[Tensor]:
        if a.shape != b.shape:
            raise ValueError(f"LPIPS compares pictures of one shape, got {list(a.shape)} and {list(b.shape)}")
        for pictures in (a, b):
            _check(pictures, self.backbone)
        self._net.spatial = spatial
        for first, second in zip(batches(a), batches(b), strict=True):
            with torch.no_grad(), _exact_convolutions():
                yield self._net(self._planes(first), self._planes(second)).cpu()

    def _planes(self, pictures: Tensor) -> Tensor:
        """[B, H, W, 3] in 0..1 -> [B, 3, H, W] in -1..1."""
        return pictures.to(self.device, torch.float32).permute(0, 3, 1, 2) * 2 - 1


def _check(pictures: Tensor, backbone: str) -> None:
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or not len(pictures):
        raise ValueError(f"pictures must have the shape [B, H, W, 3], got {list(pictures.shape)}")
    smallest = BACKBONES[backbone].smallest_side
    if min(pictures.shape[1:3]) < smallest:
        height, width = pictures.shape[1:3]
        raise ValueError(f"LPIPS on {backbone} needs sides of {smallest} pixels or more, got {width} x {height}")
    check_values(pictures)


def check_values(pictures: Tensor) -> None:
    """Raises ValueError when a value is NaN or outside 0..1."""
    low, high = (value.item() for value in pictures.aminmax())
    if not (low >= -0.01 and high <= 1.01):
        raise ValueError(f"picture values must lie in 0..1, got {low:.3g}..{high:.3g}")


def _exact_convolutions() -> AbstractContextManager[None]:
    """fp32 on CUDA too, where convolutions use TF32 by default."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _network(backbone: str, features: dict[str, Tensor]) -> Any:
    """lpips's network without a download, a print or a draw from the random generator."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        import lpips

        net = lpips.LPIPS(pretrained=False, net=backbone, pnet_rand=True, verbose=False)
    net.net.load_state_dict(_by_slice(net.net, features), assign=True)
    heads = _linear_heads(
        Path(lpips.__file__).parent / "weights" / "v0.1" / f"{backbone}.pth", BACKBONES[backbone].heads
    )
    for index, head in enumerate(net.lins):
        head.model.load_state_dict({"1.weight": heads[f"lin{index}.model.1.weight"]}, assign=True)
    return net.eval().requires_grad_(False)


def _by_slice(net: torch.nn.Module, features: dict[str, Tensor]) -> dict[str, Tensor]:
    """lpips cuts torchvision's `features` into slices and keeps the layers' numbers: features.3 is slice2.3."""
    return {name: features[f"features.{name.split('.', 1)[1]}"] for name in net.state_dict()}


def _linear_heads(path: Path, sha256: str) -> dict[str, Tensor]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is not LPIPS 0.1's linear head: install the lpips package again")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
