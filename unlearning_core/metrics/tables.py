"""Figures and settings as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table; `|` and `\` in a cell have a backslash before them."""
    return "\n".join([_row(head), "|---" * len(head) + "|", *map(_row, rows)])


def settings_line(settings: Mapping[str, Any]) -> str:
    """`steps 25, cfg 7.0`."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
