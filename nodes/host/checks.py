"""Checks of a node's inputs before anything runs."""

from __future__ import annotations

import sys
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, Signature
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

Inputs = Mapping[str, Any]


def checked(*names: str) -> Callable[[Callable[[Any, Inputs], None]], Callable[..., bool | Refusal]]:
    """Makes a node's `validate_inputs` of a check of the inputs `names`; those that are linked are not among them.

    What the check raises as ValueError or OSError becomes its answer. ComfyUI passes the inputs that the signature
    names, and makes its own checks of ranges and choices on all others.
    """

    def decorate(check: Callable[[Any, Inputs], None]) -> Callable[..., bool | Refusal]:
        def validate_inputs(cls: Any, **inputs: Any) -> bool | Refusal:
            specs = {spec.id: spec for spec in cls.define_schema().inputs}
            read = ReadInputs({name: value for name, value in inputs.items() if _readable(specs[name], value)})
            try:
                _check_choices(specs.values(), inputs)
                check(cls, read)
            except (ValueError, OSError) as error:
                return Refusal(str(error), blamed(str(error), list(inputs), read.last))
            return True

        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in names]
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


class Refusal(str):
    """What is wrong with one input.

    ComfyUI makes an error of an answer for each input that the check was given, all with the same text. An
    ExecutionBlocker is no error to it, so for every input but the wrong one this looks like one.
    """

    def __new__(cls, text: str, wrong: str) -> Refusal:
        """`wrong` is the input's name."""
        self = super().__new__(cls, text)
        self.wrong = wrong
        return self

    wrong: str

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What `isinstance` goes by."""
        asked = sys._getframe(1).f_locals.get("x")  # the input of the error; ComfyUI does not tell it otherwise
        return Refusal if asked in (self.wrong, None) or asked is self else ExecutionBlocker


class ReadInputs(UserDict[str, Any]):
    """Inputs that know which of them was read last."""

    last: str | None = None

    def __getitem__(self, name: str) -> Any:
        self.last = name
        return super().__getitem__(name)


def blamed(message: str, given: list[str], last: str | None) -> str:
    """Which of the inputs `given` a message is about: the one that it begins with, else the one that was read last."""
    named = message.partition(":")[0].lower().replace(" ", "_")
    return next((name for name in (named, last) if name in given), given[0] if given else "")


class Least(float):
    """The least value of a Float input, which NaN is below too: ComfyUI compares, and lets NaN pass."""

    def __gt__(self, value: float) -> bool:
        return not value >= self


def check_numbers(specs: Iterable[io.Input], inputs: Inputs) -> None:
    """Raises ValueError for a number out of its input's range: ComfyUI does not look at those that are linked."""
    for spec in specs:
        if isinstance(spec, (io.Int.Input, io.Float.Input)) and spec.id in inputs:
            value, low, high = inputs[spec.id], spec.min, spec.max
            if not low <= value <= high:
                raise ValueError(f"{spec.id}: {value} is out of range; choose {low} to {high}")
