"""Bars that show how far a command is: on a terminal alone, and of several processes in the main one."""

from __future__ import annotations

import sys

from tqdm import tqdm

from ..processes import current
from ..progress import OnProgress, Progress


def bar(doing: str, unit: str, total: int | None = None) -> tqdm:
    """A bar on stderr with rate and time left, to be used as a context; `total` in units, such as picture."""
    hidden = None if current().is_main else True  # None: unless stderr is a terminal
    return tqdm(desc=doing, unit=unit, total=total, disable=hidden, dynamic_ncols=True)


def moving(shown: tqdm) -> OnProgress:
    """Moves a bar as the library tells; losses go behind it, notes above."""

    def on_progress(progress: Progress) -> None:
        shown.total = progress.total
        if progress.note and current().is_main:
            shown.write(progress.note, file=sys.stderr)
        if progress.phase:
            shown.set_description(progress.phase, refresh=False)
        if progress.loss is not None:
            shown.set_postfix({"loss": progress.loss, **progress.figures}, refresh=False)
        shown.update(progress.done - shown.n)

    return on_progress
