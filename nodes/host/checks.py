"""Checks of a node's inputs before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from comfy_api.latest import io

Inputs = Mapping[str, Any]


def checked(*names: str, sockets: Sequence[str] = ()) -> Callable[[Callable[[Any, Inputs], None]], Callable[..., bool]]:
    """Makes a node's `validate_inputs` of a check of the inputs `names`; those that are linked are not among them.

    Of `sockets`, which have no value before the node runs, those are among them that are linked, with True.

    What the check raises is the one error that ComfyUI shows; an answer it would repeat for each of the names. ComfyUI
    passes the inputs that the signature names, and makes its own checks of ranges and choices on all others.
    """

    def decorate(check: Callable[[Any, Inputs], None]) -> Callable[..., bool]:
        def validate_inputs(cls: Any, **inputs: Any) -> bool:
            specs = {spec.id: spec for spec in cls.define_schema().inputs}
            _check_choices(specs.values(), inputs)
            given = {name: inputs[name] for name in names if name in inputs and _readable(specs[name], inputs[name])}
            check(cls, given | {name: True for name in sockets if name in inputs})
            return True

        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in (*names, *sockets)]
        validate_inputs.__signature__ = Signature(  # type: ignore[attr-defined]
            [Parameter("cls", Parameter.POSITIONAL_OR_KEYWORD), *parameters]
        )
        return validate_inputs

    return decorate


def _readable(spec: io.Input, value: Any) -> bool:
    """Whether there is a value, and not one that ComfyUI has refused already because it is no number."""
    return value is not None and (isinstance(value, int) or not isinstance(spec, io.Int.Input))


def _check_choices(specs: Iterable[io.Input], inputs: Inputs) -> None:
    """Raises ValueError for a choice that is no text: ComfyUI converts other inputs to their type, but not these."""
    for spec in specs:
        value = inputs.get(spec.id)
        if isinstance(spec, io.Combo.Input) and value is not None and not isinstance(value, str):
            raise ValueError(f"{spec.id}: {value!r} is no text; choose an entry of the list")


class Least(float):
    """The least value of a Float input, which NaN is below too: ComfyUI compares, and lets NaN pass."""

    def __gt__(self, value: float) -> bool:
        return not value >= self


def check_given(specs: Iterable[io.Input], inputs: Inputs) -> None:
    """Raises ValueError for an input through which nothing came, or a number out of its input's range.

    A checkpoint without text encoder or VAE gives None for it. ComfyUI does not look at values that are linked.
    """
    for spec in specs:
        value = inputs.get(spec.id)
        if isinstance(spec, (io.Model.Input, io.Clip.Input, io.Vae.Input)) and value is None and not spec.optional:
            raise ValueError(
                f"{spec.id}: nothing came through this input; its loader found none in the file, so load it by another "
                "node, or another file"
            )
        if isinstance(spec, (io.Int.Input, io.Float.Input)) and value is not None:
            low, high = spec.min, spec.max
            if not low <= value <= high:
                raise ValueError(f"{spec.id}: {value} is out of range; choose {low} to {high}")
