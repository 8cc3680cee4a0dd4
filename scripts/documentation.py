"""Write the parts of the documentation that the code knows: methods, figures and nodes.

    python scripts/documentation.py

Run it with the Python of .venv after a change to a method, to the list of figures or to a node's help page, and when
docs/integrity.csv or docs/resistance.csv was measured anew. What is outside of the comments in README.md,
nodes/web/docs and docs stays as it is.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from blocks import Block, write_changed
from downloads import ROOT
from node_pages import NODES, node_pages

sys.path.insert(0, str(ROOT))

from unlearning_core.attacks import ATTACKS, Attack
from unlearning_core.methods import METHODS, GradientMethod, Method, groups
from unlearning_core.metrics.figure import FIGURES, figure_named
from unlearning_core.metrics.plan import BASE
from unlearning_core.presets import PRESETS, Preset
from unlearning_core.reports.tables import markdown_table

COMMAND = "scripts/documentation.py"
INTEGRITY = ROOT / "docs" / "integrity.csv"
RESISTANCE = ROOT / "docs" / "resistance.csv"
BACK = {  # columns of docs/resistance.csv -> headings: shares of pictures
    **{"as trained": "as trained", "frames": "other wordings", "names": "other names", "img2img 0.7": "image to image"},
    **{"embedding": "fitted embedding", "relearning, 5": "5 steps of relearning", "relearning, 20": "20 steps"},
}
COSTS = {"seconds": "{:.1f}", "peak MB": "{:.0f}"}  # of unlearning the first task
TRANSLATED = ("zh",)  # languages that help pages have beside English
PROMPTS = ("forget", "overwrite")  # by their number in GradientMethod.guides
BETTER = {True: "higher", False: "lower", None: ""}


def method_table() -> list[str]:
    """A row for each method."""
    rows = [(f"`{name}`", kind.summary, listed([spec.name for spec in fields(kind)])) for name, kind in METHODS.items()]
    return table(("method", "under the forget prompt", "own options"), rows)


def method_groups() -> list[str]:
    """What some methods have in common."""
    return [
        f"* Solved in closed form, without training: {listed(groups.closed_forms())}.",
        f"* Only hold the overwrite prompt, and do not aim at it: {listed(groups.ignoring_overwrite())}.",
        f"* Do not use the retain prompts when help_weight is 0: {listed(groups.ignoring_retain())}.",
        f"* Hold numbers for each selected weight, whatever the rank: {listed(groups.holding_numbers())}.",
    ]


def method_sections() -> list[str]:
    """A section for each method."""
    return [line for name, kind in METHODS.items() for line in _section(name, kind)]


def _section(name: str, kind: type[Method]) -> Iterator[str]:
    yield from ("", f"### {kind.label}: `{name}`", "", f"Under the forget prompt: {kind.summary}.", "")
    yield from (f"    {line}" for line in kind.equation.splitlines())
    lacking = [name for name, can in (("LoRA", kind.low_rank), ("`micro_batch`", kind.in_parts)) if not can]
    weights = ", no ".join([f"`{kind.weights}`", *lacking])
    yield from ("", f"* Source: {kind.source}.", f"* Weights: {weights}.")
    if issubclass(kind, GradientMethod):
        yield f"* Trains on {latents(kind)}."
    for spec in fields(kind):
        low, high, text = (spec.metadata[key] for key in ("low", "high", "help"))
        yield f"* `{spec.name}` = {spec.default:g}, {low:g} to {high:g}: {text}."


def latents(kind: type[GradientMethod]) -> str:
    """Where x, x_o and x_r are."""
    what = "noised pictures" if kind.noised else "trajectories"
    prompts = [PROMPTS[guide] for guide in kind.guides] + ["retain"] * kind.uses_retain
    return f"{what} of the {' and '.join(prompts)} prompts"


def preset_table() -> list[str]:
    """A row for each preset."""
    rows = [(f"`{name}`", preset.summary, values_of(preset)) for name, preset in PRESETS.items()]
    return table(("preset", "what it costs and resists", "values"), rows)


def values_of(preset: Preset) -> str:
    """The method, and what differs from its defaults and those of the settings."""
    values = {name: _written(value) for name, value in {**preset.options, **preset.settings}.items()}
    if preset.steps_each:
        values["steps"] += f" (or {preset.steps_each} for each forget prompt, if that is more)"
    return ", ".join([f"`{preset.method}`", *(f"{name} {value}" for name, value in values.items())])


def attack_table() -> list[str]:
    """A row for each attack."""
    rows = [(f"`{name}`", kind.summary, _defaults(kind)) for name, kind in ATTACKS.items()]
    return table(("attack", "what it does", "options"), rows)


def attack_sections() -> list[str]:
    """A section for each attack."""
    return [line for name, kind in ATTACKS.items() for line in _attack_section(name, kind)]


def _attack_section(name: str, kind: type[Attack]) -> Iterator[str]:
    yield from ("", f"### {kind.label}: `{name}`", "", f"{kind.summary[0].upper()}{kind.summary[1:]}.", "")
    yield from (f"* How to read it: {kind.reading}.", f"* Source: {kind.source}.")
    for spec in fields(kind):
        if spec.metadata:
            low, high, text = (spec.metadata[key] for key in ("low", "high", "help"))
            yield f"* `{spec.name}={_written(spec.default)}`, {low:g} to {high:g}: {text}."
        else:
            yield f"* `{spec.name}={_written(spec.default)}`."


def _defaults(kind: type[Attack]) -> str:
    return " ".join(f"`{spec.name}={_written(spec.default)}`" for spec in fields(kind))


def _written(value: Any) -> str:
    """An option's value as `parse_attacks` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(_written, value))
    return value if isinstance(value, str) else f"{value:g}"


def cost_table() -> list[str]:
    """A row for each method of docs/integrity.csv, in its order: means over the training seeds."""
    measured = _measured(INTEGRITY)
    tasks, names = (list(dict.fromkeys(row[key] for row in measured)) for key in ("task", "name"))
    head = ["method", *(f"{task}: {figure_named(key).column}" for task in tasks for key in ("ua", "integrity")), *COSTS]
    rows = []
    for name in names:
        of_task = [[row for row in measured if (row["task"], row["name"]) == (task, name)] for task in tasks]
        costs = [form.format(_mean(of_task[0], key)) for key, form in COSTS.items()]
        rows.append((name, *(cell for each in of_task for cell in _forgotten_and_moved(each)), *costs))
    return table(head, rows)


def resistance_table() -> list[str]:
    """A row for the base and for each preset: means over the training seeds of docs/resistance.csv."""
    measured, rows = _measured(RESISTANCE), []
    for name in (BASE, *(name.capitalize() for name in PRESETS)):
        own = [row for row in measured if row["name"] == name]
        moved = figure_named("integrity").format.format(_mean(own, "integrity"))
        rows.append((f"`{name.lower()}`" if name != BASE else name, moved, *(f"{_mean(own, key):.0%}" for key in BACK)))
    return table(("preset", figure_named("integrity").column, *BACK.values()), rows)


def _forgotten_and_moved(rows: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """A method's UA on one task, with a star where it did not reach what the comparison asks for, and its I."""
    forgotten, moved = (figure_named(key).format.format(_mean(rows, key)) for key in ("ua", "integrity"))
    return forgotten + ("" if all(row["reached"] == "True" for row in rows) else " *"), moved


def _measured(path: Path) -> list[dict[str, str]]:
    """A benchmark's rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def _mean(rows: Sequence[Mapping[str, str]], key: str) -> float:
    return statistics.fmean(float(row[key]) for row in rows)


def figure_table() -> list[str]:
    """A row for each figure of a report."""
    rows = [
        (f"`{figure.key}`", figure.heading, figure.meaning or figure.about, BETTER[figure.higher_is_better])
        for figure in FIGURES
    ]
    return table(("key", "heading", "what it is", "better"), rows)


def node_table() -> list[str]:
    """A row for each node."""
    rows = [(f"[{page.title}]({page.path.relative_to(ROOT).as_posix()})", page.sentence) for page in node_pages()]
    return table(("node", "what it does"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Its lines."""
    return markdown_table(head, rows).splitlines()


def listed(names: Sequence[str]) -> str:
    """The names as code."""
    return ", ".join(f"`{name}`" for name in names)


def help_files(node_id: str) -> list[Path]:
    """A node's help page and its translations."""
    docs = NODES / "web" / "docs"
    return [docs / f"{node_id}.md", *(docs / node_id / f"{language}.md" for language in TRANSLATED)]


UNLEARNING = {"presets": preset_table, "methods": method_table, "groups": method_groups}
ATTACKING = {"attacks": attack_table}
PARTS: Mapping[Path, Mapping[str, Callable[[], list[str]]]] = {
    ROOT / "README.md": {
        "nodes": node_table,
        "methods": method_table,
        "costs": cost_table,
        "resistance": resistance_table,
    },
    **dict.fromkeys(help_files("UnlearnConcept"), UNLEARNING),
    ROOT / "docs" / "methods.md": {"methods": method_sections},
    **dict.fromkeys(help_files("DoesItStayForgotten"), ATTACKING),
    ROOT / "docs" / "attacks.md": {"attacks": attack_sections},
    ROOT / "docs" / "figures.md": {"figures": figure_table},
}


def generated_texts() -> dict[Path, str]:
    """Every file with generated parts, with its content. Raises ValueError when a file lacks the comments."""
    texts = {}
    for path, parts in PARTS.items():
        text = path.read_text(encoding="utf-8")
        for name, lines in parts.items():
            text = Block(name, COMMAND).fill(text, lines(), path.name)
        texts[path] = text
    return texts | {page.english: texts.get(page.path, page.text) for page in node_pages()}


def main() -> None:
    """Run the command."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        changed = write_changed(generated_texts())
    except ValueError as error:
        sys.exit(str(error))
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"{len(METHODS)} methods, {len(FIGURES)} figures, {len(changed)} files written")


if __name__ == "__main__":
    main()
