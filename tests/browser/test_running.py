"""What the nodes show of a run while it works and afterwards, in its own tab and in others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from front_end import (
    ALL,
    CHECK_STATE,
    QUICKSTART,
    RUN_MS,
    open_short_quickstart,
    open_template,
    open_workflow,
    queue,
    reload,
    set_vue,
    set_widgets,
)
from playwright.sync_api import Page, expect

TOLD = "app.graph.nodes.flatMap(node => node.widgets ?? []).map(each => String(each.value)).join('; ')"


def test_a_run_of_another_tab_is_not_shown_in_this_one(page: Page) -> None:
    """Nor what is told under its nodes."""
    open_short_quickstart(page)
    set_widgets(page, "RetentionMetric", seed=5)
    done = queue(page)
    open_template(page, ALL["style"])
    done()
    shown = page.evaluate("app.graph.nodes.find(node => node.figures).figures.element.textContent")
    assert shown == "Run the workflow: the figures come here."
    assert not page.evaluate("app.graph.nodes.some(node => node.live?.element.textContent)")
    assert not re.search("step \\d|done: |measured in|output/loras", page.evaluate(TOLD))


def test_figures_are_as_out_of_date_in_their_tab_as_before(page: Page) -> None:
    open_template(page, ALL["style"])
    open_short_quickstart(page)
    set_widgets(page, "RetentionMetric", seed=6)
    queue(page)()
    figures = page.get_by_text("Pictures of other things moved")
    expect(figures).to_have_css("opacity", "1")
    set_widgets(page, "UnlearnConcept", steps=3)
    page.evaluate(CHECK_STATE)
    expect(figures).to_have_css("opacity", "0.4")
    come_back_and_see(page, "A setting was changed since.")

    set_widgets(page, "UnlearnConcept", steps=10_000)
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(f"/step \\d+ of 10000/.test({TOLD})")
    come_back_and_see(page, "A new run is working.")
    page.evaluate("app.extensionManager.command.execute('Comfy.Interrupt')")
    expect(page.get_by_text("The last run ended before it came here.")).to_be_attached(timeout=RUN_MS)


def come_back_and_see(page: Page, reason: str) -> None:
    """From the tab to the left, to figures that are out of date."""
    show_tab(page, "Previous")
    show_tab(page, "Next")
    expect(page.get_by_text(reason)).to_be_attached()
    expect(page.get_by_text("Pictures of other things moved")).to_have_css("opacity", "0.4")


def show_tab(page: Page, beside: str) -> None:
    """The tab to the left or the right of the one that is shown."""
    workflows = "app.extensionManager.workflow"
    page.wait_for_function(f"{workflows}.activeWorkflow.activeState.id === app.graph.id")
    shown = page.evaluate("app.graph.id")
    page.evaluate(f"app.extensionManager.command.execute('Workspace.{beside}OpenedWorkflow')")
    page.wait_for_function(f"app.graph.id !== '{shown}' && app.graph.nodes.some(node => node.figures)")


def test_loaders_list_a_patch_once_it_is_saved(page: Page) -> None:
    open_short_quickstart(page)
    set_widgets(page, "SaveUnlearningPatch", filename_prefix="listed")
    queue(page)()
    for kind in ("LoadPatchedModel", "LoraLoaderModelOnly"):
        inputs = f"LiteGraph.registered_node_types.{kind}.nodeData.input"
        page.wait_for_function(f"JSON.stringify({inputs}).includes('listed_00001_.safetensors')")


def test_an_earlier_curve_does_not_come_back(page: Page) -> None:
    """After a run that trained, one that does not."""
    open_short_quickstart(page)
    set_widgets(page, "RetentionMetric", seed=7)
    queue(page)()
    expect(page.locator("polyline")).to_be_attached()
    set_widgets(page, "UnlearnConcept", thoroughness="quick")
    queue(page)()
    expect(page.locator("polyline")).to_have_count(0)
    reload(page)
    expect(page.get_by_text("Pictures of other things moved")).to_be_attached()
    expect(page.locator("polyline")).to_have_count(0)


def open_with_metric_in_subgraph(page: Page) -> None:
    """The quickstart with figures from elsewhere in Retention Metric, which is in a subgraph."""
    open_workflow(page, QUICKSTART)
    page.evaluate(
        """() => {
            const node = app.graph.nodes.find(node => node.type === 'RetentionMetric');
            const { subgraph } = app.graph.convertToSubgraph(new Set([node]));
            app.nodeOutputs = { [`${subgraph.id}:${subgraph.nodes[0].id}`]: { text: ['Found in the subgraph.'] } };
        }"""
    )


def test_figures_come_back_into_a_subgraph(page: Page) -> None:
    open_with_metric_in_subgraph(page)
    shown = page.evaluate("[...app.graph.subgraphs.values()][0].nodes[0].figures.element.firstChild.textContent")
    assert shown == "Found in the subgraph."


def test_figures_in_a_subgraph_are_out_of_date_by_what_is_outside(page: Page) -> None:
    """First by what is not in one; then what trains is in another one."""
    open_with_metric_in_subgraph(page)
    inside = "[...app.graph.subgraphs.values()].flatMap(graph => graph.nodes)"
    figures = f"{inside}.find(node => node.figures).figures"
    for place in ("app.graph.nodes", inside):
        output = f"{{ text: ['Found {len(place)}.'] }}"
        page.evaluate(f"app.nodeOutputs = {{ [`${{{figures}.node.graph.id}}:${{{figures}.node.id}}`]: {output} }}")
        page.evaluate(CHECK_STATE)
        assert page.evaluate(f"{figures}.outdated") == ""
        page.evaluate(f"{place}.find(node => node.type === 'UnlearnConcept').widgets[0].value += '!'")
        page.wait_for_function(f"({CHECK_STATE}, {figures}.outdated === 'changed')")
        if place == "app.graph.nodes":
            page.evaluate(
                "app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(node => node.type === 'UnlearnConcept')))"
            )


@pytest.mark.parametrize("vue", [False, True])
def test_training_shows_curve_and_pictures_and_can_be_stopped(page: Page, vue: bool, tmp_path: Path) -> None:
    set_vue(page, vue)
    page.evaluate("app.extensionManager.setting.set('Comfy.Execution.PreviewMethod', 'default')")
    open_workflow(page, QUICKSTART)
    set_widgets(page, "UnlearnConcept", retain_prompts="a frog", thoroughness="custom")
    set_widgets(page, "UnlearnConcept", steps=9_000 + vue, batch_size=1, runs=1, run_steps=2)
    set_widgets(page, "RetentionMetric", retain_prompts="a car", seeds=1, forget_seeds=1, steps=2)
    page.get_by_test_id("queue-button").click()

    curve, pictures = page.locator("polyline"), page.locator("img[alt^='now: ']")
    expect(page.get_by_text(re.compile(f"^Loss, step .* of {9_000 + vue}$"))).to_be_attached(timeout=RUN_MS)
    expect(curve).to_be_attached()
    expect(pictures).to_have_count(2, timeout=RUN_MS)
    assert pictures.evaluate_all("each => each.every(picture => picture.naturalWidth > 0)")
    page.screenshot(path=tmp_path / "training.png")
    page.get_by_role("button", name="Stop and keep").dispatch_event("click")
    expect(page.get_by_text("Pictures of other things moved")).to_have_css("opacity", "1", timeout=RUN_MS)
    expect(page.get_by_role("button", name="Stop and keep")).to_have_count(0)
    page.screenshot(path=tmp_path / "stopped.png")

    reload(page)
    expect(curve).to_be_attached()
    expect(pictures).to_have_count(2)
    set_vue(page, False)


def test_the_curve_is_shown_inside_a_subgraph(page: Page) -> None:
    open_workflow(page, QUICKSTART)
    shown = page.evaluate(
        """() => {
            const node = app.graph.nodes.find(node => node.type === 'UnlearnConcept');
            const { node: outer, subgraph } = app.graph.convertToSubgraph(new Set([node]));
            const run = { prompt_id: 'p', node: `${outer.id}:${subgraph.nodes[0].id}` };
            const detail = { ...run, losses: [2, 1], step: 2, steps: 3 };
            window.comfyAPI.api.api.dispatchEvent(new CustomEvent('unlearning.live', { detail }));
            return subgraph.nodes[0].live.element.textContent;
        }"""
    )
    assert shown == "Loss, step 2 of 3"
