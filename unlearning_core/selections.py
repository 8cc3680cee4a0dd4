"""Which weights a selection means: by their names where those tell, and by what their layers read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from torch import Tensor

from .fingerprint import architecture
from .model import SELECTIONS, DiffusionModel, matching
from .probes import Size
from .reads import Reads, traced

SHOWN = 6  # kinds of weights in a summary
KEY, QUERY = "to_k.weight", "to_q.weight"  # how names end

_reads: dict[str, Reads] = {}  # by architecture: weights do not matter


class Selections:
    """What the selections mean for one model.

    Names decide where they tell all; what they leave out is added by a trace, made once an architecture. Where the
    sizes of the weights prove the names, as in Stable Diffusion's U-Nets, nothing is traced.
    """

    def __init__(self, weights: Mapping[str, Tensor], trace: Callable[[], Reads]) -> None:
        """All weights by name; `trace` is asked for selections other than all."""
        self.names = sorted(weights)
        self._weights = weights
        self._trace = trace

    @cached_property
    def reads(self) -> Reads:
        """As traced."""
        return self._trace()

    @cached_property
    def proven(self) -> bool:
        """Whether keys as wide as their queries, of self-attention, are just those without a name of the text's.

        The others, of cross-attention, must have one width, which is that of the text.
        """
        named = {name for name in matching(self.names, "cross_attention_kv") if name.endswith(KEY)}
        queries = {name: name.removesuffix(KEY) + QUERY for name in self.names if name.endswith(KEY)}
        if not named or not set(queries.values()) <= set(self.names):
            return False
        widths = {key: self._weights[key].shape[1] for key in queries}
        crossing = {key for key, query in queries.items() if widths[key] != self._weights[query].shape[1]}
        return crossing == named and len({widths[key] for key in named}) == 1

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
        if selection == "all":
            return self.names
        if selection == "not_cross_attention":
            return sorted(set(self.names) - set(self.matching("cross_attention")))
        named = matching(self.names, selection)
        if self.proven:
            return named
        complete = {
            "text_projections": self._text_projections,
            "cross_attention_kv": self._cross_attention_kv,
            "cross_attention": self._cross_attention,
            "attention": self._attention,
        }
        return sorted(complete[selection](set(named)))

    def _text_projections(self, named: set[str]) -> set[str]:
        """Those that are named, if they read no picture and no token passes them by."""
        tell = named and not named & self.reads.picture and self.reads.first <= named
        return named if tell else set(self.reads.text)

    def _cross_attention_kv(self, named: set[str]) -> set[str]:
        if not named:
            return set(self.reads.text)
        return named.union(*(keys for _, keys in self.reads.crossing()))

    def _cross_attention(self, named: set[str]) -> set[str]:
        if not named:
            return set(self.reads.text | self.reads.beside)
        return named.union(*(attention.names for attention, _ in self.reads.crossing()))

    def _attention(self, named: set[str]) -> set[str]:
        """Names tell all of an attention when they name each of its queries, keys and values."""
        unnamed = (each for each in self.reads.attention if not all(layer & named for layer in each.inputs))
        return named.union(*(attention.names for attention in unnamed)) or set(self.reads.text | self.reads.beside)


def selections_of(model: DiffusionModel, size: Size) -> Selections:
    """The selections of a model that is to draw pictures of width x height pixels."""
    weights = model.weights()

    def trace() -> Reads:
        key = architecture(weights)
        if key not in _reads:
            _reads[key] = traced(model, size)
        return _reads[key]

    return Selections(weights, trace)


def summary(selection: str, names: Sequence[str]) -> str:
    """What a selection means, for the user: how many weights, and their kinds without their numbers."""
    kinds = list(dict.fromkeys(re.sub(r"\d+", "N", name.removesuffix(".weight")) for name in names))
    more = f" and {len(kinds) - SHOWN} kinds more" if len(kinds) > SHOWN else ""
    return f"{selection}: {len(names)} weights, {', '.join(kinds[:SHOWN])}{more}"
