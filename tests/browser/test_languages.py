"""ComfyUI translates what it shows of a node; the pack's parts of the page are there all the same, and follow it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from downloads import ROOT
from front_end import QUICKSTART, captions, open_workflow, reload
from playwright.sync_api import Page

LOCALES = ROOT / "locales"
WAITING = "Run the workflow: the figures come here."
SHOWN = """() => {
    const [unlearn, measure] = ['UnlearnConcept', 'RetentionMetric'].map(
        type => app.graph.nodes.find(node => node.type === type)
    );
    const asked = unlearn.widgets.filter(each => !each.hidden).map(each => each.name);
    return { asked, figures: measure.figures.element.textContent };
}"""


@pytest.fixture
def chinese(page: Page) -> Iterator[None]:
    use(page, "zh")
    yield
    use(page, "en")


def use(page: Page, language: str) -> None:
    page.evaluate("language => app.extensionManager.setting.set('Comfy.Locale', language)", language)
    reload(page)


def look(page: Page) -> dict[str, Any]:
    open_workflow(page, QUICKSTART)
    return {"captions": captions(page), **page.evaluate(SHOWN)}


def test_english(page: Page) -> None:
    found = look(page)
    assert {"forget_prompts", "overwrite_prompt", "retain_prompts"} <= {*found["captions"]}
    assert "thoroughness" in found["asked"]
    assert "method" not in found["asked"]
    assert found["figures"] == WAITING


@pytest.mark.usefixtures("chinese")
def test_chinese(page: Page) -> None:
    found = look(page)
    names = json.loads((LOCALES / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))["UnlearnConcept"]["inputs"]
    boxes = ("forget_prompts", "overwrite_prompt", "retain_prompts")
    assert {names[box]["name"] for box in boxes} <= {*found["captions"]}
    assert "thoroughness" in found["asked"]
    assert "method" not in found["asked"]
    assert found["figures"] not in ("", WAITING)
