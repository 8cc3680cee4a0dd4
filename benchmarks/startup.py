"""What the pack adds to ComfyUI's start: `python -m benchmarks.startup`.

Imports ComfyUI's own modules first, then the pack as ComfyUI imports it, in a fresh process each time; Python's
compiled files are there from a run before, as they are from the second start on. `--against FOLDER` measures another
version of the pack in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))

REPEATS = 11
# utils first, as in main.py: later, older versions take it for comfy.utils.
PROBE = """
import asyncio, importlib.util, json, sys, time
sys.path.insert(0, sys.argv[1])
from comfy.cli_args import args
args.cpu = True
import utils.extra_config, nodes, server, comfy_extras.nodes_train, comfy.sd, folder_paths
before = set(sys.modules)
wall, processor = time.perf_counter(), time.process_time()
spec = importlib.util.spec_from_file_location("pack", sys.argv[2] + "/__init__.py")
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
async def schemas():
    extension = await pack.comfy_entrypoint()
    return [node.GET_SCHEMA() for node in await extension.get_node_list()]
asyncio.run(schemas())
wall, processor = time.perf_counter() - wall, time.process_time() - processor
modules = sorted({name.split(".")[0] for name in set(sys.modules) - before})
print(json.dumps({"seconds": wall, "processor seconds": processor, "modules": modules}))
"""


def probe(comfyui: Path, pack: Path, compiled: str) -> dict[str, Any]:
    """Seconds that a pack took to import and describe its nodes, and the top-level modules that it brought."""
    command = [sys.executable, "-c", PROBE, str(comfyui), str(pack)]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    output = subprocess.run(command, cwd=comfyui, env=environment, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def measure(packs: list[Path]) -> dict[Path, list[dict[str, Any]]]:
    """The repeats of each pack, taken in turn."""
    from comfyui import find_comfyui

    comfyui = find_comfyui(Path(sys.executable))
    with tempfile.TemporaryDirectory() as compiled:
        for pack in packs:
            probe(comfyui, pack, compiled)
        turns = tqdm(range(REPEATS), desc="measuring", unit="round", disable=None)
        rounds = [{pack: probe(comfyui, pack, compiled) for pack in packs} for _ in turns]
    return {pack: [results[pack] for results in rounds] for pack in packs}


def milliseconds(results: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Median, lowest and highest of one kind of seconds."""
    values = [1000 * result[key] for result in results]
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description="What the pack's start takes.")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another version of the pack to measure too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    args = parser.parse_args()
    figures = {}
    for pack, results in measure([ROOT, args.against.resolve()] if args.against else [ROOT]).items():
        kinds = {key: milliseconds(results, key) for key in ("seconds", "processor seconds")}
        figures[str(pack)] = {"milliseconds": kinds, "repeats": REPEATS, "modules": results[0]["modules"]}
        for key, values in kinds.items():
            print(f"{pack}: {key}: median {values['median']:.0f} ms, {values['low']:.0f} to {values['high']:.0f} ms")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
