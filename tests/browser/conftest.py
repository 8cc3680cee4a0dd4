"""A real Chromium with ComfyUI's front end in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from family_graphs import model_files
from family_workflows import FAMILIES
from front_end import set_vue
from playwright.sync_api import Page, ViewportSize, sync_playwright
from screenshots import READY, find_chromium

OFFLINE = ["--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync"]
SAVED_PATCH = "loras/quickstart_00001_.safetensors"  # as the first workflow leaves it
MODEL_FILES = {SAVED_PATCH, *(path for family in FAMILIES for path in model_files(family))}
NARROW, WIDE = ViewportSize(width=1440, height=900), ViewportSize(width=1920, height=1080)
START_MS = 60_000
SETTLED_MS = 1_000


@pytest.fixture(scope="module")
def page(server: Any) -> Iterator[Page]:
    """ComfyUI's front end as somebody sees it who is past the tutorial and has the workflows' model files."""
    try:
        chromium = find_chromium()
    except ValueError as error:
        pytest.skip(str(error))
    for path in MODEL_FILES:
        file = server.base_directory / "models" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # only its name is read
    url = f"http://127.0.0.1:{server.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *OFFLINE])
        page = browser.new_page(viewport=NARROW)
        page.set_default_timeout(START_MS)
        page.on("console", lambda message: note_error(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.request.post(f"{url}/api/settings/Comfy.TutorialCompleted", data=True)
        page.goto(url)
        page.wait_for_function(READY)
        yield page
        browser.close()


complaints: list[str] = []  # in the browser's console, but for what ComfyUI itself writes there
COMFYUIS_OWN = (
    "Failed to load resource",  # what it asks for and does not find
    "Connecting to",  # what it asks another host for, of a node that it does not know
    "ComfyApp graph accessed before initialization",
    "PromptExecutionError",  # of a workflow that the server refuses
)


def note_error(text: str) -> None:
    if not text.startswith(COMFYUIS_OWN):
        complaints.append(text)


@pytest.fixture(autouse=True)
def no_complaints() -> Iterator[None]:
    """A test fails when something throws in the browser."""
    complaints.clear()
    yield
    assert complaints == []


@pytest.fixture
def wide_window(page: Page) -> Iterator[None]:
    resize(page, WIDE)
    yield
    resize(page, NARROW)


def resize(page: Page, size: ViewportSize) -> None:
    """Give the window another size, and the front end time to follow: it builds open dialogs anew."""
    page.set_viewport_size(size)
    page.wait_for_timeout(SETTLED_MS)


@pytest.fixture
def vue_nodes(page: Page) -> Iterator[None]:
    """The nodes are drawn by the newer of ComfyUI's two renderers."""
    set_vue(page, True)
    yield
    set_vue(page, False)
