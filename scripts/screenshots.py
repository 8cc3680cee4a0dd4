"""Make the documentation's screenshots anew: `python scripts/screenshots.py`.

It opens the first workflow in ComfyUI's front end, runs it, and photographs what is there then. Needs Chromium on PATH
and the Python of .venv after the tests have run once, which installs Playwright.
"""

from __future__ import annotations

import argparse
import shutil

from comfyui import Server
from downloads import ROOT
from playwright.sync_api import ViewportSize, sync_playwright
from quickstart import in_comfyui
from workflow_files import TINY_WORKFLOWS

PICTURE = ROOT / "docs" / "pictures" / "quickstart-graph.png"
WINDOW = ViewportSize(width=1440, height=900)
WAIT_MS = 600_000
READY = "window.app?.vueAppReady && window.app.graph.nodes.length > 0"  # a graph is on the canvas
DONE = "app.graph.nodes.find(node => node.type === 'RetentionMetric').imgs?.[0].naturalWidth > 0"


def find_chromium() -> str:
    """The browser on the PATH. Raises ValueError without one."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise ValueError("There is no Chromium on the PATH: install Debian's chromium, or Google Chrome.")
    return found


def photograph(server: Server) -> None:
    """The quickstart in the browser, when it is done."""
    url = f"http://127.0.0.1:{server.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=WINDOW)
        page.request.post(f"{url}/api/settings/Comfy.TutorialCompleted", data=True)
        page.goto(url)
        page.wait_for_function(READY, timeout=WAIT_MS)
        page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        page.get_by_role("button", name="comfyui-unlearning").click()
        page.get_by_test_id(f"template-workflow-{TINY_WORKFLOWS[0].title}").click()
        page.wait_for_function("app.graph.nodes.some(node => node.type === 'RetentionMetric')", timeout=WAIT_MS)
        page.get_by_test_id("queue-button").click()
        page.wait_for_function(DONE, timeout=WAIT_MS)
        page.wait_for_timeout(2000)  # the preview behind it follows
        page.screenshot(path=PICTURE)
        browser.close()


def main() -> None:
    """Run the command."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    in_comfyui(photograph)
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
