"""What the pack adds to ComfyUI's page in a browser: `python -m benchmarks.page [--json FILE]`.

The time until a graph is on the canvas of a page that is opened anew, with the pack's scripts and with empty ones in
their place, in turns. Needs Chromium on PATH, and Playwright (`pip install .[test]`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.processes import ROOT, in_turns, machine, medians, write_figures

sys.path.append(str(ROOT / "scripts"))

WITH, WITHOUT = "with the pack's scripts", "without"
SCRIPTS = "**/extensions/comfyui-unlearning/**"
ROUNDS = 11


def opened(browser: Browser, url: str, case: str) -> dict[str, float]:
    """Milliseconds until a new page shows its graph."""
    from screenshots import READY

    page = browser.new_page()
    if case == WITHOUT:
        page.route(SCRIPTS, lambda route: route.fulfill(content_type="text/javascript", body=""))
    begun = time.perf_counter()
    page.goto(url)
    page.wait_for_function(READY)
    taken = time.perf_counter() - begun
    page.close()
    return {"milliseconds": 1000 * taken}


def measure() -> dict[str, dict[str, float]]:
    """Medians over the rounds, by case."""
    from comfyui import Server, find_comfyui
    from screenshots import find_chromium

    python = Path(sys.executable)
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(find_comfyui(python), python, Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        url = f"http://127.0.0.1:{server.port}"
        playwright.request.new_context().post(f"{url}/api/settings/Comfy.TutorialCompleted", data=True)
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        opened(browser, url, WITH)  # what is loaded once
        return medians(in_turns((WITHOUT, WITH), ROUNDS, lambda case, _: opened(browser, url, case)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="What the pack adds to the page.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    args = parser.parse_args()
    found = {case: figures["milliseconds"] for case, figures in measure().items()}
    for case, milliseconds in found.items():
        print(f"{case}: {milliseconds:.0f} ms until the graph is there")
    write_figures({"machine": machine(), "rounds": ROUNDS, "milliseconds": found}, args.json)


if __name__ == "__main__":
    main()
