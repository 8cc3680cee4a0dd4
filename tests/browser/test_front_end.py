"""The workflows and the nodes in ComfyUI's own front end, in a real Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from family_graphs import WORKFLOWS, model_files
from family_workflows import FAMILIES
from node_pages import node_pages
from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OFFLINE = ["--disable-background-networking", "--disable-component-update", "--disable-quic", "--disable-sync"]
WORKFLOW_NAMES = ["quickstart", "compare", "forgetting", *(family.name for family in FAMILIES)]
MODEL_FILES = {path for family in FAMILIES for path in model_files(family)}
START_MS, RUN_MS = 60_000, 60_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the PATH: install Debian's `chromium`, or Google Chrome"
)


@pytest.fixture(scope="module")
def page(server: Any) -> Iterator[Page]:
    """ComfyUI's front end as somebody sees it who is past the tutorial and has the workflows' model files."""
    for path in MODEL_FILES:
        file = server.base_directory / "models" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # only its name is read
    url = f"http://127.0.0.1:{server.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *OFFLINE])
        page = browser.new_page(viewport={"width": 1920, "height": 1200})
        page.on("console", lambda message: note_error(message.text) if message.type == "error" else None)
        page.request.post(f"{url}/api/settings/Comfy.TutorialCompleted", data=True)
        page.goto(url)
        page.wait_for_function("window.app?.vueAppReady && window.app.graph.nodes.length > 0", timeout=START_MS)
        yield page
        browser.close()


complaints: list[str] = []  # of this pack's extensions, in the browser's console


def note_error(text: str) -> None:
    if "Unlearning." in text or "comfyui-unlearning" in text:
        complaints.append(text)


@pytest.fixture(autouse=True)
def no_complaints() -> Iterator[None]:
    """A test fails when an extension of this pack throws in the browser."""
    complaints.clear()
    yield
    assert complaints == []


def open_workflow(page: Page, path: Path) -> None:
    """Open a workflow file as the menu's Open does, and wait until its graph is there."""
    types = sorted(node["type"] for node in read(path)["nodes"])
    page.locator("#comfy-file-input").set_input_files(path)
    page.wait_for_function(
        "types => app.graph.nodes.map(node => node.type).sort().join() === types.join()", arg=types, timeout=START_MS
    )


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def faulty_nodes(page: Page) -> list[str]:
    """The types of the graph's nodes that the front end does not know or shows in red."""
    types: list[str] = page.evaluate(
        "app.graph.nodes.filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types))"
        ".map(node => node.type)"
    )
    return types


@pytest.mark.parametrize("name", WORKFLOW_NAMES)
def test_workflow_opens_and_is_the_headless_one(page: Page, name: str, tmp_path: Path) -> None:
    open_workflow(page, WORKFLOWS / f"{name}.json")

    page.screenshot(path=tmp_path / f"{name}.png")
    assert faulty_nodes(page) == []
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert prompt == read(WORKFLOWS / "api" / f"{name}.json")


def test_unknown_node_is_noticed(page: Page, tmp_path: Path) -> None:
    workflow = read(WORKFLOWS / "quickstart.json")
    workflow["nodes"][0]["type"] = "NoSuchNode"
    path = tmp_path / "unknown.json"
    path.write_text(json.dumps(workflow), encoding="utf-8")

    open_workflow(page, path)

    assert faulty_nodes(page) == ["NoSuchNode"]


def test_every_node_has_its_help_page(page: Page, server: Any) -> None:
    nodes = page.evaluate(
        "Object.values(LiteGraph.registered_node_types).map(type => type.nodeData)"
        ".filter(data => data?.python_module === 'custom_nodes.comfyui-unlearning').map(data => data.name)"
    )

    assert sorted(nodes) == sorted(page.node_id for page in node_pages())
    for node in nodes:
        answer = page.request.get(f"http://127.0.0.1:{server.port}/extensions/comfyui-unlearning/docs/{node}.md")
        assert answer.ok
        assert "# " in answer.text()


def test_quickstart_runs_and_shows_sheet_and_figures(page: Page, tmp_path: Path) -> None:
    open_workflow(page, WORKFLOWS / "quickstart.json")
    set_widgets(page, "UnlearnConcept", forget_prompts="a cat face", overwrite_prompt="a dog face")
    set_widgets(page, "UnlearnConcept", retain_prompts="a frog", steps=2, batch_size=1, runs=1, run_steps=2)
    set_widgets(page, "RetentionMetric", retain_prompts="a car", forget_prompts="a cat face")
    set_widgets(page, "RetentionMetric", seeds=1, forget_seeds=1, steps=2)

    page.get_by_test_id("queue-button").click()

    cells = page.locator("td")
    expect(cells.filter(has_text="I (integrity")).to_be_visible(timeout=RUN_MS)
    expect(cells.get_by_text("a car", exact=True)).to_have_count(1)
    page.wait_for_function(
        "app.graph.nodes.find(node => node.type === 'RetentionMetric').imgs?.[0].naturalWidth > 0", timeout=RUN_MS
    )
    page.screenshot(path=tmp_path / "finished.png")
    saved = page.evaluate("app.graph.serialize().nodes.find(node => node.type === 'RetentionMetric').widgets_values")
    assert saved[0] == "a car"
    assert not any("integrity" in str(value) for value in saved)


def test_one_mistake_is_one_error(page: Page, tmp_path: Path) -> None:
    """On the first click, with the sentence that says what to do."""
    open_workflow(page, WORKFLOWS / "quickstart.json")
    set_widgets(page, "UnlearnConcept", forget_prompts="")

    with page.expect_response(lambda response: response.url.endswith("/prompt")) as answer:
        page.get_by_test_id("queue-button").click()

    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "mistake.png")
    errors = [error for node in answer.value.json()["node_errors"].values() for error in node["errors"]]
    assert [error["details"] for error in errors] == [
        "forget prompts: empty; write at least one prompt to forget, one per line"
    ]


def set_widgets(page: Page, node_type: str, **values: Any) -> None:
    """Give widgets of the graph's node of this type new values."""
    page.evaluate(
        """([type, values]) => {
            const node = app.graph.nodes.find(node => node.type === type);
            for (const [name, value] of Object.entries(values))
                node.widgets.find(widget => widget.name === name).value = value;
        }""",
        [node_type, values],
    )
