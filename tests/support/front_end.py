"""What tests do in ComfyUI's own front end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from screenshots import READY
from workflow_files import FAMILY_WORKFLOWS, TINY_WORKFLOWS, Workflow

KNOWN = {workflow.name: workflow for workflow in (*TINY_WORKFLOWS, *FAMILY_WORKFLOWS)}
ALL = {name: workflow for name, workflow in KNOWN.items() if workflow.graph.app is None}  # that open as a graph
QUICKSTART = ALL["quickstart"].file
LOADED = "app.graph.nodes.length > 0 && !app.graph.nodes.some(node => node.earlier)"
PACK = "comfyui-unlearning"
RUN_MS = 60_000
CHECK_STATE = "app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()"


@contextmanager
def another_graph(page: Page) -> Iterator[None]:
    """Waits until what the block opens is there, though the graph before may look the same."""
    page.evaluate("app.graph.nodes.forEach(node => { node.earlier = true; })")
    yield
    page.wait_for_function(LOADED)


def open_workflow(page: Page, path: Path) -> None:
    """Open a workflow file as the menu's Open does."""
    with another_graph(page):
        page.locator("#comfy-file-input").set_input_files(path)
    types = page.evaluate("app.graph.nodes.map(node => node.type)")
    assert sorted(types) == sorted(node["type"] for node in read(path)["nodes"])


def reload(page: Page) -> None:
    """Load the page anew, and wait until its graph is there."""
    page.reload()
    page.wait_for_function(READY)


def captions(page: Page) -> list[str]:
    """What a classic Unlearn Concept writes over its widgets."""
    written: list[str] = page.evaluate(
        """() => {
            const node = app.graph.nodes.find(node => node.type === 'UnlearnConcept');
            const written = [];
            const pen = { save() {}, restore() {}, fillText: text => written.push(text) };
            const any = { get: (pen, name) => pen[name] ?? (() => ({})) };
            node.onDrawForeground(new Proxy(pen, any), { ds: app.canvas.ds });
            return written;
        }"""
    )
    return written


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def set_vue(page: Page, on: bool) -> None:
    page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", on)


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


def open_template(page: Page, workflow: Workflow) -> None:
    """Open a workflow as somebody does in the template browser."""
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_role("button", name=PACK).click()
    with another_graph(page):
        page.get_by_test_id(f"template-workflow-{workflow.title}").click()
    assert page.evaluate("app.graph.id") == read(workflow.file)["id"]


def open_short_quickstart(page: Page) -> None:
    """The quickstart with as little to do as there can be."""
    open_workflow(page, QUICKSTART)
    shorten(page)


def shorten(page: Page) -> None:
    """Little to do for the quickstart's nodes."""
    set_widgets(page, "UnlearnConcept", forget_prompts="a cat face", overwrite_prompt="a dog face")
    set_widgets(page, "UnlearnConcept", thoroughness="custom")
    set_widgets(page, "UnlearnConcept", retain_prompts="a frog", steps=2, batch_size=1, runs=1, run_steps=2)
    set_widgets(page, "RetentionMetric", retain_prompts="a car", forget_prompts="a cat face")
    set_widgets(page, "RetentionMetric", seeds=1, forget_seeds=1, steps=2)


def queue(page: Page) -> Callable[[], object]:
    """Runs the workflow; what it returns waits until that is done."""
    page.evaluate("window.ended = 0; window.comfyAPI.api.api.addEventListener('execution_success', () => ended++)")
    page.get_by_test_id("queue-button").click()
    return partial(page.wait_for_function, "ended > 0", timeout=RUN_MS)
