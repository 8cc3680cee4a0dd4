"""What the pack adds to ComfyUI's start: `python -m benchmarks.startup`.

Imports ComfyUI's own modules first, then the pack as ComfyUI imports it, in a fresh process each time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))

REPEATS = 5
# utils first, as in main.py: later, older versions take it for comfy.utils.
PROBE = """
import asyncio, importlib.util, json, sys, time
sys.path.insert(0, sys.argv[1])
from comfy.cli_args import args
args.cpu = True
import utils.extra_config, nodes, server, comfy_extras.nodes_train, comfy.sd, folder_paths
before = set(sys.modules)
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack", sys.argv[2] + "/__init__.py")
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
async def schemas():
    extension = await pack.comfy_entrypoint()
    return [node.GET_SCHEMA() for node in await extension.get_node_list()]
asyncio.run(schemas())
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted({name.split(".")[0] for name in set(sys.modules) - before})}))
"""


def probe(comfyui: Path) -> tuple[float, list[str]]:
    """Seconds that the pack took to import and describe its nodes, and the top-level modules that it brought."""
    command = [sys.executable, "-c", PROBE, str(comfyui), str(ROOT)]
    output = subprocess.run(command, cwd=comfyui, check=True, capture_output=True, text=True).stdout
    result = json.loads(output.splitlines()[-1])
    return result["seconds"], result["modules"]


def main() -> None:
    """The command line."""
    from comfyui import find_comfyui

    runs = [probe(find_comfyui(Path(sys.executable))) for _ in range(REPEATS)]
    seconds = [run[0] for run in runs]
    median, low, high = (1000 * value for value in (statistics.median(seconds), min(seconds), max(seconds)))
    print(f"median {median:.0f} ms, from {low:.0f} to {high:.0f} ms")
    print("modules:", ", ".join(runs[0][1]))


if __name__ == "__main__":
    main()
