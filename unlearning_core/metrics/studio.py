"""Pictures of several models of one host, all drawn under the same settings and through one cache."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ..digests import digest, tensors
from .cache import PictureCache
from .plan import Draw, PromptSeed

Model = TypeVar("Model", contravariant=True)
DIGITS = 16  # of a digest in a report


class Drawing(Protocol[Model]):
    """How a host draws with its models, and what its pictures depend on."""

    def draw(self, model: Model, prompt_seeds: Sequence[PromptSeed]) -> Tensor:
        """Pictures [len(prompt_seeds), H, W, 3] in 0..1 on the CPU."""
        ...

    def encode(self, prompt: str) -> Any:
        """A prompt's conditioning: tensors in nested lists and dictionaries."""
        ...

    def settings(self, model: Model) -> Mapping[str, Any]:
        """Sampler, steps, size, precision and the like, for a report."""
        ...

    def identity(self, model: Model) -> str:
        """The digest of the weights, and of everything else on the model that changes its pictures."""
        ...

    def vae_digest(self) -> str:
        """Of the VAE's weights."""
        ...

    def surroundings(self, model: Model) -> Mapping[str, Any]:
        """What else pictures depend on, such as the device, as JSON."""
        ...


class Studio(Generic[Model]):
    """Draws with any number of models; a picture that was drawn before comes from the cache."""

    def __init__(self, drawing: Drawing[Model], cache: PictureCache) -> None:
        self.drawing = drawing
        self._cache = cache
        self._cond_digest = functools.cache(lambda prompt: digest(tensors(drawing.encode(prompt))))

    def bare(self, model: Model) -> Draw:
        """Draws everything again."""
        return functools.partial(self.drawing.draw, model)

    def cached(self, model: Model) -> Draw:
        """Draws what is not in the cache."""
        return self._cache.drawing(self._key_of(model), self.bare(model))

    def count_missing(self, model: Model, prompt_seeds: Sequence[PromptSeed]) -> int:
        """How many of the pictures `cached` would draw, were it asked for all at once."""
        return self._cache.count_missing(self._key_of(model), prompt_seeds)

    def _key_of(self, model: Model) -> Callable[[str], Mapping[str, Any]]:
        """What determines a prompt's pictures."""
        key = {
            **self.drawing.settings(model),
            **self.drawing.surroundings(model),
            "weights": self.drawing.identity(model),
            "VAE": self.drawing.vae_digest(),
            "negative": self._cond_digest(""),
            "torch": torch.__version__,
        }
        return lambda prompt: {**key, "cond": self._cond_digest(prompt)}

    def settings(self, base: Model) -> dict[str, Any]:
        """How pictures are drawn and with which weights, for a report."""
        return {
            **self.drawing.settings(base),
            "base": self.drawing.identity(base)[:DIGITS],
            "VAE": self.drawing.vae_digest()[:DIGITS],
            "text encoder": self._cond_digest("")[:DIGITS],
        }

    def identity(self, unlearned: Model) -> dict[str, str]:
        """Which model was measured, for a report."""
        return {"unlearned": self.drawing.identity(unlearned)[:DIGITS]}
