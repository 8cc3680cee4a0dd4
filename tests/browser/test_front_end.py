"""The workflows and the nodes in ComfyUI's own front end, in a real Chromium."""

from __future__ import annotations

import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from front_end import (
    ALL,
    CHECK_STATE,
    KNOWN,
    PACK,
    QUICKSTART,
    RUN_MS,
    captions,
    open_short_quickstart,
    open_template,
    open_workflow,
    queue,
    read,
    reload,
    set_vue,
    set_widgets,
    shorten,
)
from node_pages import node_pages
from playwright.sync_api import Page, expect

LAYOUTS = (
    "quickstart",
    "pictures",
    "patch",
    "compare",
    "attacks",
    "clip_judge",
    "own_judge",
    "flux",
    "z_image",
    "flux2_klein",
)
READABLE = 0.6  # of the canvas' scale; below 0.57 classic nodes have no text


def faulty_nodes(page: Page) -> list[str]:
    """The types of the graph's nodes that the front end does not know or shows in red."""
    types: list[str] = page.evaluate(
        "app.graph.nodes.filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types))"
        ".map(node => node.type)"
    )
    return types


def places(page: Page, vue: bool) -> dict[str, list[float]]:
    """Left, top, right and bottom of each node and group on the canvas, with its title, as it is drawn."""
    boxes: dict[str, list[float]] = page.evaluate(
        """vue => Object.fromEntries([...app.graph.nodes, ...app.graph.groups].map(each => {
            const { scale, offset } = app.canvas.ds;
            const drawn = vue && document.querySelector(`[data-node-id="${each.id}"]`)?.getBoundingClientRect();
            const canvas = app.canvas.canvas.getBoundingClientRect();
            const [x, y, width, height] = vue && each.type
                ? [(drawn.x - canvas.x) / scale - offset[0], (drawn.y - canvas.y) / scale - offset[1],
                   drawn.width / scale, drawn.height / scale]
                : each.boundingRect ?? each._bounding;
            return [`${each.type ?? "group"} ${each.id}`, [x, y, x + width, y + height]];
        }))""",
        vue,
    )
    return boxes


def check_readable(page: Page, vue: bool) -> None:
    """The workflow that was just opened has text, no node is over another, and each is within its group."""
    assert page.evaluate("app.canvas.ds.scale") >= READABLE
    drawn = places(page, vue)
    nodes = {name: place for name, place in drawn.items() if not name.startswith("group ")}
    groups = [place for name, place in drawn.items() if name not in nodes]
    for name, (left, top, right, bottom) in nodes.items():
        around = [each for each in groups if each[0] <= left and right <= each[2]]
        assert any(each[1] <= top and bottom <= each[3] for each in around), (
            f"{name} leaves its group: {(left, top, right, bottom)}"
        )
    for (one, first), (other, second) in combinations(nodes.items(), 2):
        apart = any(first[2 + axis] <= second[axis] or second[2 + axis] <= first[axis] for axis in (0, 1))
        assert apart, f"{one} {first} and {other} {second} overlap"


@pytest.mark.parametrize("name", ALL)
def test_workflow_opens_readable_and_is_the_headless_one(page: Page, name: str, tmp_path: Path) -> None:
    workflow = ALL[name]
    open_template(page, workflow)

    page.screenshot(path=tmp_path / f"{name}.png")
    assert faulty_nodes(page) == []
    check_readable(page, vue=False)
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert prompt == read(workflow.api_file)


@pytest.mark.usefixtures("vue_nodes")
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_readable_with_vue_nodes(page: Page, name: str, tmp_path: Path) -> None:
    check_opened_with_vue_nodes(page, name, tmp_path)


@pytest.mark.usefixtures("wide_window")
@pytest.mark.parametrize("name", ["quickstart", "z_image"])
def test_layout_is_readable_in_a_wide_window(page: Page, name: str) -> None:
    open_template(page, ALL[name])
    check_readable(page, vue=False)


@pytest.mark.usefixtures("vue_nodes", "wide_window")
@pytest.mark.parametrize("name", ["quickstart", "z_image"])
def test_layout_is_readable_with_vue_nodes_in_a_wide_window(page: Page, name: str, tmp_path: Path) -> None:
    check_opened_with_vue_nodes(page, name, tmp_path)


def check_opened_with_vue_nodes(page: Page, name: str, folder: Path) -> None:
    open_template(page, ALL[name])
    page.wait_for_function("app.graph.nodes.every(each => document.querySelector(`[data-node-id='${each.id}']`))")
    page.screenshot(path=folder / f"{name}.png")
    check_readable(page, vue=True)


@pytest.mark.usefixtures("vue_nodes")  # app mode switches them on, and they are off again afterwards
def test_app_shows_four_inputs_and_is_the_quickstart(page: Page, tmp_path: Path) -> None:
    workflow = KNOWN["app"]
    app = workflow.graph.app
    assert app and len(app.inputs) == 4
    open_template(page, workflow)

    expect(page.get_by_test_id("linear-widgets")).to_be_visible()
    captions = page.get_by_test_id("linear-widgets").get_by_test_id("builder-widget-label")
    expect(captions).to_have_text([*app.inputs.values()])
    expect(page.get_by_test_id("linear-run-button")).to_be_visible()
    page.screenshot(path=tmp_path / "app.png")
    shown = page.evaluate("app.graph.extra.linearData.outputs")
    assert [*map(str, shown)] == [*map(str, app.outputs)]
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == read(workflow.api_file)
    open_template(page, ALL["quickstart"])
    expect(page.get_by_test_id("linear-widgets")).to_be_hidden()


def test_unknown_node_is_noticed(page: Page, tmp_path: Path) -> None:
    workflow = read(QUICKSTART)
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
    for node, place in product(nodes, ("", "/en", "/zh")):
        answer = page.request.get(f"http://127.0.0.1:{server.port}/extensions/{PACK}/docs/{node}{place}.md")
        assert answer.ok, f"{node}{place}"
        assert answer.text().startswith("# ")


def test_quickstart_runs_and_shows_sheet_and_figures(page: Page, tmp_path: Path) -> None:
    open_short_quickstart(page)
    page.get_by_test_id("queue-button").click()

    cells = page.locator("td")
    expect(page.get_by_text("Pictures of other things moved")).to_be_visible(timeout=RUN_MS)
    expect(cells.filter(has_text="I (integrity")).to_be_attached()
    expect(cells.get_by_text("a car", exact=True)).to_have_count(1)
    page.wait_for_function(HAS_SHEET, timeout=RUN_MS)
    page.screenshot(path=tmp_path / "finished.png")
    take_along(page)
    saved = page.evaluate("app.graph.serialize().nodes.find(node => node.type === 'RetentionMetric').widgets_values")
    assert saved[:2] == ["a cat face", "a car"]
    assert not any("integrity" in str(value) for value in saved)
    say_when_out_of_date(page)


HAS_SHEET = "app.graph.nodes.find(node => node.type === 'RetentionMetric').imgs?.[0].naturalWidth > 0"


def take_along(page: Page) -> None:
    """The text and the files of the figures that are shown."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy", exact=True).dispatch_event("click")
    expect(page.get_by_role("button", name="Copied", exact=True)).to_be_attached()
    assert "| I (integrity loss" in page.evaluate("navigator.clipboard.readText()")
    links = page.locator("a[download]")
    names = ["SHEET.PNG", "JSON", "CSV"]
    expect(links).to_have_text(names)
    begins = (b"\x89PNG", b"{", b"model,")
    for link, begin in zip(links.all(), begins, strict=True):
        assert page.request.get(link.evaluate("each => each.href")).body().startswith(begin)


def say_when_out_of_date(page: Page) -> None:
    """The figures that are shown: a changed setting, the same setting again, a run that is cancelled, a reload."""
    figures = page.get_by_text("Pictures of other things moved")
    expect(figures).to_have_css("opacity", "1")

    set_widgets(page, "UnlearnConcept", steps=3)
    page.evaluate(CHECK_STATE)
    expect(page.get_by_text("A setting was changed since.")).to_be_attached()
    expect(figures).to_have_css("opacity", "0.4")
    set_widgets(page, "UnlearnConcept", steps=2)
    page.evaluate(CHECK_STATE)
    expect(figures).to_have_css("opacity", "1")

    set_widgets(page, "UnlearnConcept", steps=10_000)
    page.get_by_test_id("queue-button").click()
    expect(page.get_by_text("A new run is working.")).to_be_attached()
    page.wait_for_function("app.graph.nodes.some(node => node.widgets?.some(each => /step \\d+ of/.test(each.value)))")
    page.evaluate("app.extensionManager.command.execute('Comfy.Interrupt')")
    expect(page.get_by_text("The last run ended before it came here.")).to_be_attached(timeout=RUN_MS)
    expect(figures).to_have_css("opacity", "0.4")

    reload(page)
    expect(page.get_by_text("The last run ended before it came here.")).to_be_attached()
    expect(figures).to_have_css("opacity", "0.4")
    expect(page.locator("a[download]")).to_have_count(3)
    page.wait_for_function(HAS_SHEET)
    told = page.evaluate("app.graph.nodes.flatMap(node => node.widgets ?? []).map(widget => String(widget.value))")
    assert any("output/loras/quickstart" in text for text in told)
    assert "ended before it was done" in told


@pytest.mark.parametrize("vue", [False, True])
def test_results_stay_in_their_groups(page: Page, vue: bool, tmp_path: Path) -> None:
    set_vue(page, vue)
    open_template(page, ALL["quickstart"])
    shorten(page)
    set_widgets(page, "RetentionMetric", seed=7 + vue)
    queue(page)()
    page.wait_for_timeout(3000)  # until pictures are there and nodes have grown
    page.screenshot(path=tmp_path / "grown.png")
    check_readable(page, vue)


def test_prompt_boxes_have_caption_and_tooltip(page: Page) -> None:
    open_workflow(page, QUICKSTART)
    tooltips = page.evaluate(
        """() => {
            const node = app.graph.nodes.find(node => node.type === 'UnlearnConcept');
            return node.widgets.filter(each => each.type === 'customtext').map(each => each.element.title);
        }"""
    )
    assert {"forget_prompts", "overwrite_prompt", "retain_prompts"} <= set(captions(page))
    assert [tooltip.partition(":")[0] for tooltip in tooltips] == [
        "What to forget",
        "What to draw instead",
        "What to hold",
    ]


def test_one_mistake_is_one_error(page: Page, tmp_path: Path) -> None:
    """On the first click, with the sentence that says what to do."""
    open_workflow(page, QUICKSTART)
    set_widgets(page, "UnlearnConcept", forget_prompts="")

    with page.expect_response(lambda response: response.url.endswith("/prompt")) as answer:
        page.get_by_test_id("queue-button").click()

    page.wait_for_timeout(1000)
    page.screenshot(path=tmp_path / "mistake.png")
    errors = [error for node in answer.value.json()["node_errors"].values() for error in node["errors"]]
    assert [error["details"] for error in errors] == [
        "forget prompts: empty; write at least one prompt to forget, one per line"
    ]


def test_an_error_at_run_time_is_told_in_the_nodes_own_words(page: Page, tmp_path: Path) -> None:
    """Where ComfyUI has a sentence for all errors: beside it, and under the node."""
    open_short_quickstart(page)
    set_widgets(page, "RetentionMetric", width=16, height=16)
    page.get_by_test_id("queue-button").click()
    expect(page.get_by_text("the metric needs sides of 31 pixels").first).to_be_visible(timeout=RUN_MS)
    page.screenshot(path=tmp_path / "error.png")
    told = page.evaluate("app.graph.nodes.flatMap(node => node.widgets ?? []).map(widget => String(widget.value))")
    assert any("the metric needs sides of 31 pixels" in text for text in told)
