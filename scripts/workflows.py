"""Write the workflows, their thumbnails and their tables in README.md.

    python scripts/workflows.py

Run it after a change to tiny_workflows.py or family_workflows.py, with the Python of .venv or another that has Pillow.
What is as it should be stays untouched, and so do the thumbnails that scripts/pictures.py has made: a workflow that
needs no download gets one of its nodes only while it has none. The files of a workflow that was taken off the list
are left for you to delete.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from blocks import write_changed
from downloads import ROOT
from workflow_files import FAMILY_WORKFLOWS, TINY_WORKFLOWS, generated_texts
from workflow_thumbnails import alike, thumbnail

WORKFLOWS = (*TINY_WORKFLOWS, *FAMILY_WORKFLOWS)


def write_thumbnails() -> list[Path]:
    """Write the thumbnails; return those that changed."""
    changed = []
    for workflow in WORKFLOWS:
        path, picture = workflow.thumbnail, thumbnail(workflow.label, workflow.graph)
        if not (path.exists() and (workflow in TINY_WORKFLOWS or alike(path.read_bytes(), picture))):
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
    print(f"{len(WORKFLOWS)} workflows, {len(changed)} files written")


if __name__ == "__main__":
    main()
