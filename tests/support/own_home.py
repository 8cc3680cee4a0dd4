"""A home of the tests' own, so that no result depends on what is in the user's caches and settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from unlearning_core.metrics.backbones import BACKBONES, find_features

PLACES = {  # variables that say where settings and caches are -> the same places below a home
    "HOME": "",
    "USERPROFILE": "",  # the home on Windows
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "MPLCONFIGDIR": ".config/matplotlib",
    "TORCH_HOME": ".cache/torch",
    "HF_HOME": ".cache/huggingface",
    "HF_HUB_CACHE": ".cache/huggingface/hub",
}
USERS = {name: os.environ.get(name) for name in PLACES}


def move_in(home: Path, environment: pytest.MonkeyPatch) -> None:
    """Makes the empty folder `home` the home of this process and of those that it starts.

    Of the user's caches it holds the weights of AlexNet and VGG16 that are there.
    """
    users_hub = Path(torch.hub.get_dir())
    found = [find_features(name) for name, backbone in BACKBONES.items() if backbone.sdist]
    weights = [path for path in found if path and path.is_relative_to(users_hub)]
    for name, place in PLACES.items():
        environment.setenv(name, str(home / place))
    for path in weights:
        link = Path(torch.hub.get_dir()) / path.relative_to(users_hub)
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(path.absolute())
        except OSError:  # on Windows, where links need a right
            shutil.copyfile(path, link)


@contextmanager
def users_home() -> Iterator[None]:
    """Within the context the user's settings count: pip's, and comfy-cli's, which may name a ComfyUI."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in USERS.items():
            if value is None:
                environment.delenv(name, raising=False)
            else:
                environment.setenv(name, value)
        yield
