"""Which weights a selection means: by their names where those tell, else by what their layers read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from .fingerprint import architecture
from .model import SELECTIONS, DiffusionModel, matching
from .probes import Size, small_size

TEXTS = ("a dog", "a red car in a garden")  # any two that differ
SHOWN = 6  # kinds of weights in a summary
KERNELS = {F.scaled_dot_product_attention, F.softmax, torch.softmax, Tensor.softmax}

_reads: dict[str, Reads] = {}  # by architecture: weights do not matter


class Reads(NamedTuple):
    """What the layers of a network read, by the names of their matrices."""

    text: frozenset[str]  # the prompt and nothing else
    beside: frozenset[str]  # in the modules that layers of the text are in
    attention: frozenset[str]  # what goes into attention, or comes from it


class Selections:
    """What the selections mean for one model.

    Names decide where they tell; other models are traced, once an architecture.
    """

    def __init__(self, names: Sequence[str], trace: Callable[[], Reads]) -> None:
        """`names` of all weights; `trace` is asked when a selection finds none of them."""
        self.names = sorted(names)
        self._trace = trace

    @cached_property
    def reads(self) -> Reads:
        """As traced."""
        return self._trace()

    def of(self, selection: str) -> list[str]:
        """The sorted names that belong to `selection`, one of SELECTIONS.

        Raises ValueError when the model has no such weights.
        """
        chosen = self.matching(selection)
        if not chosen:
            others = ", ".join(other for other in SELECTIONS if self.matching(other))
            raise ValueError(f"weights: this model has no {selection} weights; choose one of {others}")
        return chosen

    def matching(self, selection: str) -> list[str]:
        """As `of`, empty when the model has no such weights."""
        if selection == "not_cross_attention":
            return sorted(set(self.names) - set(self.matching("cross_attention")))
        return matching(self.names, selection) or self._traced(selection)

    def _traced(self, selection: str) -> list[str]:
        reads = self.reads
        found = {
            "text_projections": reads.text,
            "cross_attention_kv": reads.text,
            "cross_attention": reads.text | reads.beside,
            "attention": reads.attention or reads.text | reads.beside,
        }
        return sorted(found[selection])


def selections_of(model: DiffusionModel, size: Size) -> Selections:
    """The selections of a model that is to draw pictures of width x height pixels."""
    weights = model.weights()

    def trace() -> Reads:
        key = architecture(weights)
        if key not in _reads:
            _reads[key] = traced(model, size)
        return _reads[key]

    return Selections(list(weights), trace)


def summary(selection: str, names: Sequence[str]) -> str:
    """What a selection means, for the user: how many weights, and their kinds without their numbers."""
    kinds = list(dict.fromkeys(re.sub(r"\d+", "N", name.removesuffix(".weight")) for name in names))
    more = f" and {len(kinds) - SHOWN} kinds more" if len(kinds) > SHOWN else ""
    return f"{selection}: {len(names)} weights, {', '.join(kinds[:SHOWN])}{more}"


def traced(model: DiffusionModel, size: Size) -> Reads:
    """What the layers of a model read, from four predictions: another prompt, another latent, another noise level."""
    width, height = small_size(model, *size)
    matrices = {name: model.module(name) for name, weight in model.weights().items() if weight.ndim >= 2}
    latents, sigmas, conds = model.noise([0, 1], width, height), model.sigmas(4)[1:3], model.encode(TEXTS)
    variations = {"": (0, 0, 0), "latent": (1, 0, 0), "sigma": (0, 1, 0), "text": (0, 0, 1)}
    seen = {}
    for variation, (latent, sigma, prompt) in variations.items():
        with _watched() as seen[variation]:
            model.predict_x0(latents[latent : latent + 1], sigmas[sigma : sigma + 1], [conds[prompt]])
    first = seen[""]
    text = {
        name
        for name, module in matrices.items()
        if all(watched.feeds(module) for watched in seen.values())
        and first.differs(seen["text"], module)
        and not any(first.differs(seen[other], module) for other in ("latent", "sigma"))
    }
    return Reads(
        text=frozenset(text),
        beside=frozenset(_siblings(text, matrices)),
        attention=frozenset(name for name, module in matrices.items() if module in first.in_attention),
    )


class _Watched(TorchFunctionMode):
    """The inputs of every module during one prediction, and which modules attention is computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: dict[nn.Module, list[Tensor]] = {}
        self.in_attention: set[nn.Module] = set()
        self._running: list[nn.Module] = []

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._running.append(module)
        given = [value.detach().clone() for value in inputs[:1] if isinstance(value, Tensor)]
        self.inputs.setdefault(module, []).extend(given)

    def leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        while self._running.pop() is not module:  # one that raised, where that was caught, has not left
            pass

    def feeds(self, module: nn.Module) -> bool:
        """Whether a module was given vectors: a table is given numbers of words, and an expert may be given none."""
        given = self.inputs.get(module, [])
        return bool(given) and all(one.is_floating_point() and one.numel() > 0 for one in given)

    def differs(self, other: _Watched, module: nn.Module) -> bool:
        """Whether a module that was called read something else in another prediction."""
        ours, theirs = self.inputs.get(module, []), other.inputs.get(module, [])
        return len(ours) != len(theirs) or not all(map(torch.equal, ours, theirs))

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in KERNELS and self._running:
            self.in_attention.update(self._running[-1].modules())
        return function(*args, **(kwargs or {}))


@contextmanager
def _watched() -> Iterator[_Watched]:
    watched = _Watched()
    handles = [register_module_forward_pre_hook(watched.enter), register_module_forward_hook(watched.leave)]
    try:
        with watched, torch.enable_grad():  # also of a model that keeps predictions which need no gradients
            yield watched
    finally:
        for handle in handles:
            handle.remove()


def _siblings(names: set[str], matrices: Mapping[str, nn.Module]) -> Iterator[str]:
    """The names of matrices in the same module as one of `names`."""
    places = {_parent(name) for name in names}
    return (name for name in matrices if _parent(name) in places)


def _parent(name: str) -> str:
    """`…cross_attn` of `…cross_attn.k.weight`."""
    return name.rsplit(".", 2)[0]
