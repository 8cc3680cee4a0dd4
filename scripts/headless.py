"""Run a workflow in a headless ComfyUI with this pack: `python scripts/headless.py workflows/api/compare.json`.

Everything that its nodes put out is written to a folder: pictures, patches and reports under their own names. Text is
printed. What is installed, and where, is as in scripts/quickstart.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comfyui import Server
from downloads import ROOT
from quickstart import in_comfyui, run_workflow, seconds_of


def files_of(entry: dict[str, Any]) -> Iterator[dict[str, str]]:
    """What a history entry says about each file that its nodes wrote."""
    for output in entry["outputs"].values():
        for values in output.values():
            yield from (value for value in values if isinstance(value, dict) and "filename" in value)


def texts_of(entry: dict[str, Any]) -> list[str]:
    """What the nodes of a history entry show as text."""
    return [text for output in entry["outputs"].values() for text in output.get("text", ())]


def save(server: Server, entry: dict[str, Any], folder: Path) -> None:
    """Writes every file that the nodes of a history entry put out."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files_of(entry):
        (folder / Path(file["filename"]).name).write_bytes(server.download(file))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflow", type=Path, help="file in API format, as in workflows/api")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="without it output/ and the workflow's name")
    arguments = parser.parse_args()
    if not arguments.workflow.is_file():
        parser.error(f"{arguments.workflow}: there is no such file")
    out = arguments.out or ROOT / "output" / arguments.workflow.stem

    def run(server: Server) -> dict[str, Any]:
        entry = run_workflow(server, arguments.workflow)
        save(server, entry, out)
        return entry

    entry = in_comfyui(run)
    print(*texts_of(entry), sep="\n\n")
    print(f"{seconds_of(entry):.0f} s. Everything that it made is in {out}")


if __name__ == "__main__":
    main()
