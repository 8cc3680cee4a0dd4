"""What a frozen base has predicted, kept in memory, so that a run that was cancelled need not sample again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from .digests import digest
from .fingerprint import Fingerprint
from .model import Cond, DiffusionModel
from .vocabulary import Embedded, Vocabulary

LIMIT = 2**29  # bytes


class KeptPredictions:
    """Predictions on the CPU under a hash of everything that determines them; the least recently used ones go first."""

    def __init__(self, limit: int = LIMIT) -> None:
        """`limit` in bytes."""
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Tensor | None:
        """The prediction, now the most recently used one."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, prediction: Tensor) -> None:
        """Keeps a new prediction, unless it is larger than the limit."""
        kept = prediction.detach().cpu().clone()
        if kept.nbytes > self.limit:
            return
        with self._lock:
            self._kept[key] = kept
            self.size += kept.nbytes
            while self.size > self.limit:
                self.size -= self._kept.popitem(last=False)[1].nbytes


class KeepingModel:
    """A `DiffusionModel` that asks `model` only for predictions that are not kept yet.

    Kept are predictions of the base itself, without deltas and without gradients. They are the same numbers as the
    model's own. Methods in closed form look into the network while it predicts, so they need the model itself.
    """

    def __init__(self, model: DiffusionModel, identity: str, kept: KeptPredictions) -> None:
        """`identity` tells apart whatever changes the model's predictions: weights, patches, precision, device."""
        self._model = model
        self._identity = identity
        self._kept = kept
        self._attached = False
        self._conds: dict[int, tuple[Cond, str | None]] = {}  # by id, with the conditioning, which so stays alive

    @property
    def device(self) -> torch.device:
        """Where latents and deltas live."""
        return self._model.device

    def encode(self, prompts: Sequence[str]) -> list[Cond]:
        """One conditioning for each prompt."""
        return self._model.encode(prompts)

    def vocabulary(self) -> Vocabulary:
        """The words of the model's text encoder."""
        return self._model.vocabulary()

    def embedded(self, prompt: str) -> Embedded:
        """A prompt's differentiable conditioning."""
        return self._model.embedded(prompt)

    def predict_x0(self, x: Tensor, sigma: Tensor, conds: Sequence[Cond]) -> Tensor:
        """As the model's, kept where it is the base's own."""
        contents = [self._content(cond) for cond in conds]
        if self._attached or torch.is_grad_enabled() or None in contents:
            return self._model.predict_x0(x, sigma, conds)
        key = sha256(repr([self._identity, digest({"x": x, "sigma": sigma}), contents]).encode()).hexdigest()
        kept = self._kept.get(key)
        if kept is not None:
            return kept.to(x.device, copy=True)
        x0 = self._model.predict_x0(x, sigma, conds)
        self._kept.put(key, x0)
        return x0

    def sigmas(self, steps: int) -> Tensor:
        """The model's noise levels."""
        return self._model.sigmas(steps)

    def noise(self, seeds: Sequence[int], width: int, height: int) -> Tensor:
        """The model's pure-noise latents."""
        return self._model.noise(seeds, width, height)

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """The model's noised latents."""
        return self._model.noised(x0, noise, sigma)

    def weights(self) -> Mapping[str, Tensor]:
        """The model's frozen weights."""
        return self._model.weights()

    def fingerprint(self) -> Fingerprint:
        """Which base the model is."""
        return self._model.fingerprint()

    def module(self, name: str) -> nn.Module:
        """The module that owns the weight `name`."""
        return self._model.module(name)

    @contextmanager
    def attach(self, deltas: Mapping[str, nn.Module]) -> Iterator[None]:
        """The model's; nothing is kept within the context."""
        with self._model.attach(deltas):
            self._attached = True
            try:
                yield
            finally:
                self._attached = False

    def _content(self, cond: Cond) -> str | None:
        if id(cond) not in self._conds:
            self._conds[id(cond)] = cond, content(cond)
        return self._conds[id(cond)][1]


def content(value: Any) -> str | None:
    """Text that is equal for equal nested lists and dictionaries of tensors and plain values; None with others."""
    if isinstance(value, Tensor):
        return digest({"": value})
    if isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        parts = [(repr(key), content(entry)) for key, entry in entries]
        return None if any(part is None for _, part in parts) else f"{type(value).__name__}{sorted(parts)}"
    return repr(value) if isinstance(value, str | int | float | None) else None
