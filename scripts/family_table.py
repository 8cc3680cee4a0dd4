"""Write the table of docs/families.md: `python scripts/family_table.py` trains a small network of every family.

It runs the tests of tests/comfy/test_family_matrix.py, which hold the table to what they find.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from blocks import Block
from downloads import ROOT

PAGE = ROOT / "docs" / "families.md"
BLOCK = Block("families", "scripts/family_table.py")
TABLE = "UNLEARNING_FAMILIES"  # names a folder, in the environment: tests write their rows there
COLUMNS = ("OVW", "OVW, rank 4", "ESD", "UCE", "checkpointing", "metric", "diffusers")
REFUSED = "refused"

Row = Mapping[str, str]  # what was found, by column; or under REFUSED why the family is not served


def note(name: str, row: Row) -> None:
    """Holds a family to its line of the table, or writes its row where the command collects them.

    Raises ValueError when the line says something else.
    """
    folder = os.environ.get(TABLE)
    if folder:
        (Path(folder) / f"{name}.json").write_text(json.dumps(row), encoding="utf-8")
    elif line(name, row) not in PAGE.read_text(encoding="utf-8").splitlines():
        raise ValueError(f"{PAGE} is outdated: run `python {BLOCK.command}`; {name} is now {row}")


def line(name: str, row: Row) -> str:
    """One line of the table."""
    if REFUSED in row:
        return f"| `{name}` | {REFUSED}: {row[REFUSED]} |{' |' * (len(COLUMNS) - 1)}"
    return f"| `{name}` | {' | '.join(row[column] for column in COLUMNS)} |"


def table(rows: Mapping[str, Row]) -> list[str]:
    """All lines, in the order of the rows."""
    head = f"| family | {' | '.join(COLUMNS)} |"
    return [head, "|---" * (len(COLUMNS) + 1) + "|", *(line(name, row) for name, row in rows.items())]


def main() -> None:
    """Run the command."""
    with tempfile.TemporaryDirectory() as folder:
        matrix = ["tests/comfy/test_family_matrix.py", "-m", "families or not families"]
        command = [sys.executable, str(ROOT / "scripts" / "test.py"), *matrix]
        tests = subprocess.run(command, env={**os.environ, TABLE: folder})
        rows = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("*.json"))}
    PAGE.write_text(BLOCK.fill(PAGE.read_text(encoding="utf-8"), table(rows), PAGE.name), encoding="utf-8")
    sys.exit(tests.returncode)


if __name__ == "__main__":
    main()
