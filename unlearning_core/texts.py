"""What the prompts feed into the layers that read the text and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn

from .digests import tensors
from .model import Cond, DiffusionModel
from .probes import Size, small_size
from .prompts import quoted

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ASKED = 2  # prompts that must be found in the text encoder's output before the network is left alone


class TextReader:
    """The tokens that reach some layers, in groups of layers that share them.

    The network is asked, up to its last such layer. Where they read the text encoder's output as it is, that alone
    answers from the third prompt on.
    """

    def __init__(self, model: DiffusionModel, names: Sequence[str], size: Size, one_text: bool = False) -> None:
        """`names` of the layers' weights; `size` of a picture in pixels that the model draws.

        With `one_text`, all the layers read what the first one reads where that is the text encoder's output as it is.
        Raises ValueError for a layer that is not linear in each token, and when none reach a layer.
        """
        for name in names:
            _check_linear(name, model.module(name))
        self._model = model
        self._size = small_size(model, *size)
        self._begin(names[:1] if one_text else names)
        if one_text and all(self._places):
            self.groups = [list(names)]
        elif one_text:
            self._begin(names)

    def _begin(self, names: Sequence[str]) -> None:
        """Finds the groups by the empty prompt."""
        self._places: list[set[str]] = []  # of a group's tokens in an encoded prompt
        self._asked = 1
        first = self._from_network("", names, to_the_end=len(names) > 1)
        self.groups = _sharing(first)
        self._dtype = first[self.groups[0][0]].dtype  # that the network reads text in
        self._note("", [first[group[0]] for group in self.groups])

    @torch.no_grad()
    def read(self, prompt: str) -> list[Tensor]:
        """The tokens [T, D] of each group under a prompt, in float64. Raises ValueError when none reach a layer."""
        if self._asked >= ASKED and all(self._places):
            parts = tensors(self._model.encode([prompt])[0])
            places = [min(places) for places in self._places]
            if all(place in parts for place in places):
                found = [_rows(parts[place]).to(self._model.device) for place in places]
                return [tokens.to(self._dtype).double() for tokens in found]
        seen = self._from_network(prompt, [group[0] for group in self.groups])
        read = [seen[group[0]] for group in self.groups]
        self._note(prompt, read)
        self._asked += 1
        return [tokens.double() for tokens in read]

    @torch.no_grad()
    def _from_network(self, prompt: str, names: Sequence[str], to_the_end: bool = False) -> dict[str, Tensor]:
        """What reaches each layer; these do not see the picture, but the model has to take its size.

        The network stops when each layer has read, unless it is to go on `to_the_end`. Raises ValueError for a layer
        that reads two texts, or none.
        """
        conds, x, sigma = self._model.encode([prompt]), self._model.noise([0], *self._size), self._model.sigmas(1)[:1]
        seen: dict[str, Tensor] = {}
        with ExitStack() as hooks, suppress(_AllSeen), self._model.attach({}):  # the network itself, nothing kept
            for name in names:
                module = self._model.module(name)
                keep = _keeper(seen, name, 0 if to_the_end else len(names))
                hooks.callback(module.register_forward_pre_hook(keep, with_kwargs=True).remove)
            self._model.predict_x0(x, sigma, conds)
        for name in names:
            if name not in seen or not len(seen[name]):  # as where each token has an expert of its own
                raise ValueError(
                    f"weights: nothing of {quoted(prompt)} reaches {name}; choose a method that trains, without protect"
                )
        return seen

    def _note(self, prompt: str, read: Sequence[Tensor]) -> None:
        """Where in the encoded prompt the tokens are that were read."""
        [cond] = self._model.encode([prompt])
        found = [_places_of(tokens, cond) for tokens in read]
        self._places = [old & new for old, new in zip(self._places or found, found, strict=True)]


class _AllSeen(Exception):
    """Ends a prediction that has told all that it was asked for."""


def _check_linear(name: str, layer: nn.Module) -> None:
    """Raises ValueError for a layer that is more than one matrix that each token is multiplied by."""
    if isinstance(layer, CONVOLUTIONS):
        fits = layer.groups == 1 and set(layer.kernel_size) == {1}
    else:
        weight: Any = layer.weight  # loaders have linear layers of classes of their own
        fits = weight.ndim == 2
    if not fits:
        raise ValueError(
            f"weights: {name} ({type(layer).__name__}) does not read token by token, as closed forms and protect need; "
            "choose a method that trains, without protect"
        )


def _keeper(seen: dict[str, Tensor], name: str, count: int) -> Callable[..., None]:
    """A hook that keeps what a layer reads, and ends the prediction when so many layers have read."""

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        given = inputs[0] if inputs else named["input"]
        tokens = _rows(given.movedim(-1 - _dimensions(module), -1))
        if name in seen and not torch.equal(seen[name], tokens):
            raise ValueError(
                f"weights: {name} reads several texts in one prediction; choose a method that trains, without protect"
            )
        seen[name] = next((other for other in seen.values() if torch.equal(other, tokens)), tokens)
        if len(seen) == count:
            raise _AllSeen

    return keep


def _dimensions(layer: nn.Module) -> int:
    """Of what a layer reads, behind its channels."""
    return len(layer.kernel_size) if isinstance(layer, CONVOLUTIONS) else 0


def _rows(tokens: Tensor) -> Tensor:
    """[..., D] as [T, D]."""
    return tokens.flatten(0, -2)


def _places_of(tokens: Tensor, cond: Cond) -> set[str]:
    """Where an encoded prompt holds these tokens [T, D], but for the network's precision."""
    parts = {place: part for place, part in tensors(cond).items() if part.ndim >= 2}
    return {place for place, part in parts.items() if torch.equal(_rows(part).to(tokens), tokens)}


def _sharing(tokens: Mapping[str, Tensor]) -> list[list[str]]:
    """The names that share one tensor, group by group."""
    groups: dict[int, list[str]] = {}
    for name, inputs in tokens.items():
        groups.setdefault(id(inputs), []).append(name)
    return list(groups.values())
