"""Parts of Markdown files that a command writes, each between two comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Block:
    """A part of a file, and the command that writes it."""

    name: str
    command: str

    @property
    def start(self) -> str:
        """The comment before it."""
        return f"<!-- {self.name}: made by {self.command} -->"

    @property
    def end(self) -> str:
        """The comment behind it."""
        return f"<!-- /{self.name} -->"

    def fill(self, text: str, lines: Sequence[str], file: str) -> str:
        """`text` with `lines` between the two comments. Raises ValueError, which names `file`, without them."""
        before, start, rest = text.partition(self.start)
        _, end, after = rest.partition(self.end)
        if not (start and end):
            raise ValueError(f"{file} needs the lines {self.start!r} and {self.end!r} around what is written there")
        return "\n".join([f"{before}{start}", *lines, f"{end}{after}"])


def write_changed(texts: Mapping[Path, str]) -> list[Path]:
    """Write the files whose content is another; return those."""
    changed = []
    for path, text in texts.items():
        if not (path.exists() and path.read_text(encoding="utf-8") == text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed
