"""Checks of a node's inputs before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

Inputs = Mapping[str, Any]


def checked(*names: str) -> Callable[[Callable[[Any, Inputs], None]], Callable[..., bool | str]]:
    """Makes a node's `validate_inputs` of a check of the inputs `names`; those that are linked are not among them.

    What the check raises as ValueError or OSError becomes its answer. ComfyUI passes the inputs that the signature
    names, and makes its own checks of ranges and choices on all others.
    """

    def decorate(check: Callable[[Any, Inputs], None]) -> Callable[..., bool | str]:
        def validate_inputs(cls: Any, **inputs: Any) -> bool | str:
            try:
                check(cls, {name: value for name, value in inputs.items() if value is not None})
            except (ValueError, OSError) as error:
                return str(error)
            return True

        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None) for name in names]
        validate_inputs.__signature__ = Signature(  # type: ignore[attr-defined]
            [Parameter("cls", Parameter.POSITIONAL_OR_KEYWORD), *parameters]
        )
        return validate_inputs

    return decorate
