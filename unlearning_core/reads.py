"""What the layers of a network read, from a few predictions: the prompt, the picture, and for attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from .digests import tensors
from .model import DiffusionModel
from .probes import Size, small_size

TEXTS = ("a dog", "a red car in a garden")  # any two that differ

# torch's functions, by their names: attention is one of them, or a softmax of one product in another.
ATTENTION = "scaled_dot_product_attention"
SOFTMAX = "softmax"
PRODUCTS = {"matmul", "__matmul__", "bmm", "baddbmm", "einsum"}
SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__", "addcmul", "addcmul_", "lerp"}
WRITING = "__setitem__"  # returns nothing
LIKE = {"to", "type_as", "expand_as", "view_as", "reshape_as"}  # another tensor: only the first one's numbers are in it

Layer = frozenset[str]  # the names of one layer's matrix, which are several where a host fuses some


class Attention(NamedTuple):
    """One computation of attention."""

    inputs: frozenset[Layer]  # whose outputs are its queries, keys and values
    outputs: frozenset[Layer]  # that read its result before anything is added to it

    @property
    def names(self) -> set[str]:
        """Of all its layers."""
        return {name for layer in self.inputs | self.outputs for name in layer}


class Reads(NamedTuple):
    """What the layers of a network read, by the names of their matrices."""

    text: frozenset[str] = frozenset()  # the prompt and nothing else
    first: frozenset[str] = frozenset()  # the prompt's tokens, before any other layer has
    picture: frozenset[str] = frozenset()  # the latent or its noise level, whatever else
    beside: frozenset[str] = frozenset()  # in the modules of attention that layers of the text are in
    attention: frozenset[Attention] = frozenset()

    def crossing(self) -> Iterator[tuple[Attention, set[str]]]:
        """Each attention of something else to the text, and the names of those of its inputs that read it."""
        for attention in self.attention:
            keys = {name for layer in attention.inputs if layer <= self.text for name in layer}
            if keys and not all(layer <= self.text for layer in attention.inputs):
                yield attention, keys


def traced(model: DiffusionModel, size: Size) -> Reads:
    """What the layers of a model read, from four predictions: another prompt, another latent, another noise level."""
    width, height = small_size(model, *size)
    matrices = {name: model.module(name) for name, weight in model.weights().items() if weight.ndim >= 2}
    latents, sigmas, conds = model.noise([0, 1], width, height), model.sigmas(4)[1:3], model.encode(TEXTS)
    variations = {"": (0, 0, 0), "latent": (1, 0, 0), "sigma": (0, 1, 0), "text": (0, 0, 1)}
    seen = {}
    for variation, (latent, sigma, prompt) in variations.items():
        with model.attach({}), _watched() as seen[variation]:  # as it is in training, without kernels of its own
            model.predict_x0(latents[latent : latent + 1], sigmas[sigma : sigma + 1], [conds[prompt]])
    first = seen[""]
    picture = {
        name for name, module in matrices.items() if any(first.differs(seen[by], module) for by in ("latent", "sigma"))
    }
    text = {
        name
        for name, module in matrices.items()
        if name not in picture
        and first.differs(seen["text"], module)
        and all(watched.feeds(module) for watched in seen.values())
    }
    attention = _named(first, matrices)
    attending = {_parent(name) for each in attention for name in each.names}
    return Reads(
        text=frozenset(text),
        first=frozenset(name for name in text if matrices[name] in first.first),
        picture=frozenset(picture),
        beside=frozenset(_siblings(text, matrices, attending)),
        attention=attention,
    )


class _Origin(NamedTuple):
    """What a tensor is made of, by anything but layers."""

    layers: frozenset[nn.Module] = frozenset()  # whose outputs are in it
    attended: frozenset[int] = frozenset()  # computations of attention whose results it is
    product: bool = False  # of two tensors that are not weights
    softmax: bool = False  # of such a product


class _Watched(TorchFunctionMode):
    """What layers are given during one prediction, and how their outputs reach attention and come from it."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: dict[nn.Module, list[Tensor]] = {}
        self.first: set[nn.Module] = set()  # that read tokens which no layer has made
        self.attention: list[tuple[frozenset[nn.Module], set[nn.Module]]] = []  # inputs, outputs
        self._origins: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Notes what a layer was given, and that it made its output."""
        [given, *_] = [*args, *kwargs.values(), None]
        weight = getattr(module, "weight", None)
        if not isinstance(given, Tensor) or not isinstance(weight, Tensor) or weight.ndim < 2:
            return
        self.inputs.setdefault(module, []).append(given.detach().clone())
        origin = self._origin(given)
        for number in origin.attended:
            self.attention[number][1].add(module)
        if given.ndim > 2 and not origin.layers | origin.attended:
            self.first.add(module)
        self._made(output, _Origin(frozenset([module])))

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
        result = function(*args, **(kwargs or {}))
        given = list(tensors([args, kwargs]).values())
        name = getattr(function, "__name__", "")
        given = given[:1] if name in LIKE else given
        if any(tensor in self._origins for tensor in given):
            made = args[0] if name == WRITING else result
            self._made(made, self._follow(name, given, made))
        return result

    def _origin(self, tensor: Tensor) -> _Origin:
        origin: _Origin = self._origins.get(tensor, _Origin())
        return origin

    def _made(self, made: Any, origin: _Origin) -> None:
        self._origins.update(dict.fromkeys(tensors(made).values(), origin))

    def _follow(self, name: str, given: list[Tensor], made: Any) -> _Origin:
        """Where a result of one of torch's functions comes from."""
        origins = [self._origins[tensor] for tensor in given if tensor in self._origins]
        layers = frozenset[nn.Module]().union(*(origin.layers for origin in origins))
        product, softmax = any(origin.product for origin in origins), any(origin.softmax for origin in origins)
        if name == ATTENTION or (name in PRODUCTS and softmax and len(origins) > 1):
            self.attention.append((layers, set()))
            return _Origin(attended=frozenset([len(self.attention) - 1]))
        attended = frozenset[int]().union(*(origin.attended for origin in origins))
        if name in SUMS:  # with something else, as the picture before attention, it is a result no longer
            size = made.numel()
            attended = attended.intersection(*(self._origin(one).attended for one in given if one.numel() == size))
        product = product or (name in PRODUCTS and len(origins) > 1)
        return _Origin(layers, attended, product, softmax or (name == SOFTMAX and product))


@contextmanager
def _watched() -> Iterator[_Watched]:
    watched = _Watched()
    handle = register_module_forward_hook(watched.called, with_kwargs=True)
    try:
        with watched, torch.enable_grad():  # also of a model that keeps predictions which need no gradients
            yield watched
    finally:
        handle.remove()


def _named(watched: _Watched, matrices: Mapping[str, nn.Module]) -> frozenset[Attention]:
    """The computations of attention by the names of their layers; some have layers without names, or none."""
    names: dict[nn.Module, set[str]] = {}
    for name, module in matrices.items():
        names.setdefault(module, set()).add(name)

    def layers(modules: Iterable[nn.Module]) -> frozenset[Layer]:
        return frozenset(frozenset(names[module]) for module in modules if module in names)

    return frozenset(Attention(layers(inputs), layers(outputs)) for inputs, outputs in watched.attention)


def _siblings(names: set[str], matrices: Mapping[str, nn.Module], attending: set[str]) -> Iterator[str]:
    """The names of matrices in the same module as one of `names`, of those that attend where any is known to."""
    places = {_parent(name) for name in names}
    places = places & attending if attending else places
    return (name for name in matrices if _parent(name) in places)


def _parent(name: str) -> str:
    """`…cross_attn` of `…cross_attn.k.weight`."""
    return name.rsplit(".", 2)[0]
