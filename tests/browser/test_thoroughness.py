"""Unlearn Concept asks for what has to be decided, and hides what changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from front_end import ALL, open_workflow, read, set_widgets
from playwright.sync_api import Page, expect

UNLEARN = "app.graph.nodes.find(node => node.type === 'UnlearnConcept')"
# Inputs that older files lack.
LATEST = ("thoroughness", "adversaries", "retain_ratio", "held_wordings", "micro_batch", "relearning")


def test_a_new_node_shows_what_has_to_be_decided(page: Page) -> None:
    place_unlearn_concept(page)
    names = shown(page)
    assert names[:4] == ["forget_prompts", "overwrite_prompt", "thoroughness", "retain_prompts"]
    assert {"seed", "width", "height", "rank"} <= {*names}
    assert not {"method", "method.ridge", "steps", "weights", "protect", "wordings"} & {*names}

    choose(page, thoroughness="custom", method="uce")
    assert {"method", "method.ridge", "weights", "rank", "wordings"} <= {*shown(page)}
    assert not {"steps", "learning_rate", "width", "height", "seed", "protect"} & {*shown(page)}
    choose(page, wordings=4)
    assert {"width", "height"} <= {*shown(page)}
    choose(page, method="ovw")
    assert {"method.help_weight", "steps", "learning_rate", "seed", "protect"} <= {*shown(page)}

    choose(page, thoroughness="quick")
    assert not {"steps", "rank"} & {*shown(page)}
    sent = page.evaluate("async () => Object.values((await app.graphToPrompt()).output)[0].inputs")
    assert {"thoroughness": "quick", "method": "ovw", "wordings": 4, "steps": 80}.items() <= sent.items()


def test_a_methods_options_come_back_with_it(page: Page) -> None:
    """What was set for a method, after others and presets, and from a file."""
    place_unlearn_concept(page)
    options = f"{UNLEARN}.widgets.filter(each => each.name.startsWith('method.')).map(each => [each.name, each.value])"
    told: dict[str, dict[str, float]] = {
        "ovw": {"method.help_weight": 3},
        "saddle": {"method.margin": 0.5, "method.damping": 2},
    }
    choose(page, thoroughness="custom")
    for method, values in told.items():
        choose(page, method=method)
        set_widgets(page, "UnlearnConcept", **values)
    for method, values in told.items():
        choose(page, method="uce")
        choose(page, thoroughness="quick")
        choose(page, thoroughness="custom")
        choose(page, method=method)
        assert values.items() <= dict(page.evaluate(options)).items()
    page.evaluate("app.loadGraphData(app.graph.serialize())")
    page.wait_for_function(f"{UNLEARN}?.widgets.some(each => each.name === 'method.margin')")
    assert told["saddle"].items() <= dict(page.evaluate(options)).items()
    choose(page, method="ovw")
    choose(page, method="saddle")
    assert told["saddle"].items() <= dict(page.evaluate(options)).items()


@pytest.mark.usefixtures("vue_nodes")
def test_a_new_vue_node_shows_what_has_to_be_decided(page: Page) -> None:
    place_unlearn_concept(page)
    node = page.locator("[data-node-id]")
    expect(node.get_by_text("thoroughness", exact=True)).to_be_attached()
    expect(node.get_by_text("protect", exact=True)).to_have_count(0)
    choose(page, thoroughness="custom", method="ovw")
    expect(node.get_by_text("protect", exact=True)).to_be_attached()
    choose(page, method="uce")
    expect(node.get_by_text("protect", exact=True)).to_have_count(0)
    expect(node.get_by_text("weights", exact=True)).to_be_attached()


def test_files_from_before_the_choice_mean_custom_and_keep_their_values(page: Page, tmp_path: Path) -> None:
    saved = read(ALL["style"].file)
    [node] = [each for each in saved["nodes"] if each["type"] == "UnlearnConcept"]
    values = [*node["widgets_values"]]
    assert values[-len(LATEST) :] == ["custom", 0, 1, 0, 0, 0]
    del node["widgets_values"][-len(LATEST) :]
    node["inputs"] = [each for each in node["inputs"] if each["name"] not in LATEST]
    path = tmp_path / "before.json"
    path.write_text(json.dumps(saved), encoding="utf-8")
    place_unlearn_concept(page)

    open_workflow(page, path)

    sent = read(ALL["style"].api_file)
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == sent
    assert page.evaluate(f"{UNLEARN}.serialize().widgets_values") == values
    [before] = [each for each in sent.values() if each["class_type"] == "UnlearnConcept"]
    for name in LATEST:
        del before["inputs"][name]
    page.evaluate("prompt => app.loadApiJson(prompt, 'before')", sent)
    assert page.evaluate(f"{UNLEARN}.widgets.find(each => each.name === 'thoroughness').value") == "custom"


def test_the_choice_is_saved_behind_the_other_values(page: Page) -> None:
    place_unlearn_concept(page)
    choose(page, thoroughness="thorough", method="esd", wordings=3)
    saved = page.evaluate("app.graph.serialize()")
    assert saved["nodes"][0]["widgets_values"][-len(LATEST) - 1 :] == [3, "thorough", 0, 1, 0, 0, 0]
    page.evaluate("async saved => { app.graph.clear(); app.graph.configure(saved); }", saved)
    assert page.evaluate("app.graph.serialize().nodes[0].widgets_values") == saved["nodes"][0]["widgets_values"]
    assert "steps" not in shown(page)


def place_unlearn_concept(page: Page) -> None:
    """An empty graph with a new node, as the search box adds it.

    A workflow has an id: without one ComfyUI gives a new node the widgets' state of the one that had its number before.
    """
    page.evaluate(
        "() => { app.graph.clear(); app.graph.id = crypto.randomUUID();"
        " app.graph.add(LiteGraph.createNode('UnlearnConcept')); }"
    )


def shown(page: Page) -> list[str]:
    """The names of the node's widgets that are visible, from top to bottom."""
    names: list[str] = page.evaluate(
        f"() => {{ const node = {UNLEARN};"
        " return node.widgets.filter(widget => node.isWidgetVisible(widget)).map(widget => widget.name); }"
    )
    return names


def choose(page: Page, **values: Any) -> None:
    """Give the node's widgets new values, as somebody does who uses them."""
    page.evaluate(
        f"""values => {{
            const node = {UNLEARN};
            for (const [name, value] of Object.entries(values)) {{
                const widget = node.widgets.find(widget => widget.name === name);
                widget.value = value;
                widget.callback?.(value);
            }}
        }}""",
        values,
    )
