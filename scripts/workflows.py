"""Write the workflows of the model families, their thumbnails and their table in README.md.

    python scripts/workflows.py

Run it after a change to family_workflows.py, with the Python of .venv or another that has Pillow. What is as it should
be stays untouched. The files of a family that was taken off the list are left for you to delete.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from blocks import write_changed
from downloads import ROOT
from family_graphs import WORKFLOWS, generated_texts, graph
from family_workflows import FAMILIES
from workflow_thumbnails import alike, thumbnail


def write_thumbnails() -> list[Path]:
    """Write the thumbnails; return those that changed."""
    changed = []
    for family in FAMILIES:
        path, picture = WORKFLOWS / f"{family.name}.jpg", thumbnail(family.label, graph(family))
        if not (path.exists() and alike(path.read_bytes(), picture)):
            path.write_bytes(picture)
            changed.append(path)
    return changed


def main() -> None:
    """Run the command."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        changed = write_changed(generated_texts()) + write_thumbnails()
    except ValueError as error:
        sys.exit(str(error))
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"{len(FAMILIES)} families, {len(changed)} files written")


if __name__ == "__main__":
    main()
