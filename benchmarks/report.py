"""The comparison as a CSV, a Markdown page with the paper's claims, and two figures."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.bootstrap import difference, is_clear
from benchmarks.contenders import AS_WRITTEN, HELD
from unlearning_core.metrics.figure import figure_named
from unlearning_core.metrics.statistics import Interval
from unlearning_core.reports.tables import markdown_table, settings_line

Row = dict[str, Any]  # one training seed of one method on one task

SHOWN = (  # keys of unlearning_core.metrics.figure, in the order of the table
    "ua",
    "ira",
    "cra",
    "integrity",
    "noise floor",
    "forget distance",
    "clip score retain",
)
SETS: dict[str, tuple[str, str]] = {  # Fréchet distances of the retain pictures -> heading and form
    "frechet other seeds": ("FD, other seeds", "{:.2f}"),
    "frechet drawings": ("FD, drawings", "{:.2f}"),
}
COSTS: dict[str, str] = {  # what unlearning takes -> how it is printed
    "seconds": "{:.1f}",
    "network calls": "{:.0f}",
    "peak MB": "{:.0f}",
    "patch MB": "{:.2f}",
}
COLUMNS: dict[str, tuple[str, str]] = {  # key of a row -> heading and form
    **{figure.key: (figure.column, figure.format) for figure in map(figure_named, SHOWN)},
    **SETS,
    **{key: (key, form) for key, form in COSTS.items()},
}
CSV_COLUMNS = (
    *("task", "name", "seed", "reached", "ua", "ira", "cra", "integrity", "interval low", "interval high"),
    *("noise floor", "forget distance", *SETS, "clip score retain", "base clip score retain", "patch MB"),
    *("seconds", "network calls", "peak MB", "device"),
)
INTRODUCTION = """# What forgetting costs

Written by `python -m benchmarks.integrity` on the shipped model. Each method has twelve settings, three groups of four
from weak to strong; the first of a group with a UA of at least 95 % represents the group, and of these the one with the
lowest integrity loss is compared, or the next stronger one of its group, until the mean UA over three training seeds is
95 % too. All choices are made on other pictures than those below, of the same prompts and training seeds. A figure is
the mean over training seeds, with the lowest and highest in brackets where they differ; closed forms draw nothing at
random. A method marked * did not reach 95 %, so its integrity loss is not at equal forgetting.

UA: share of 96 forget pictures that no longer show the concept (if all do, the true share is 96 % or more). IRA, CRA:
shares of 48 retain pictures that show their own label in the forgotten domain and in the other. I, the integrity loss
(lower is better): mean LPIPS of the retain pictures, from prompts that were not trained on. FD: Fréchet distance of the
retain pictures on AlexNet's features, from the base's pictures of the same prompts and other seeds, and from the
artists' own drawings. CLIPScore: of the retain pictures, by the shipped CLIP model. Seconds, calls of the network and
memory above the loaded model are those of unlearning from nothing, on a CPU with the first training seed. Protected
rows have `protect` 0.01 and 8 wordings, the one with `held_wordings` 8 of these too; Quick, Balanced and Thorough are
the presets as they are.

Pictures: {pictures}. All figures but the costs were computed on {devices}.
The scale of I: among the base's pictures, another seed of the same prompt gives LPIPS {seed:.3f}, another prompt
{prompt:.3f}.

[methods.md](methods.md#what-the-comparison-shows) discusses these figures.
"""

OURS = ("OVW", "Saddle")
BASELINES = ("ESD-x", "SalUn", "SA")
COLOURS = (*map(colormaps["tab10"], range(10)), "black")
NO_HELP, PROTECTED = " without L_help", ", protected"
BLIND = ("frechet other seeds", "frechet drawings", "clip score retain")  # what the first claim says overlooks damage


class Claim(NamedTuple):
    """One of the paper's claims on this evidence."""

    text: str
    holds: bool
    figures: list[str]


def write_report(rows: Sequence[Row], scale: dict[str, float], settings: dict[str, Any], folder: Path) -> None:
    """Writes integrity.csv, integrity.md and pictures/integrity-{methods,tradeoff}.png into `folder`."""
    write_csv(rows, folder / "integrity.csv")
    (folder / "integrity.md").write_text(page(rows, scale, settings), encoding="utf-8")
    draw_methods(rows, folder / "pictures" / "integrity-methods.png")
    draw_tradeoff(rows, folder / "pictures" / "integrity-tradeoff.png")


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a training seed: what the page shows of it, and its intervals."""
    names = [name for name in CSV_COLUMNS if name in rows[0]]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "setting"])
        writer.writerows([*(row[name] for name in names), shown(row["setting"])] for row in rows)


def page(rows: Sequence[Row], scale: dict[str, float], settings: dict[str, Any]) -> str:
    """docs/integrity.md."""
    lines = [
        INTRODUCTION.format(
            pictures=settings_line(settings),
            devices=devices(rows),
            seed=scale["another seed"],
            prompt=scale["another prompt"],
        )
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"## {task}", "", *table(rows, task), ""]
    lines += ["## The paper's claims", ""]
    for claim in (claim_sight(rows), claim_order(rows), claim_help(rows)):
        lines += [f"**{'Holds' if claim.holds else 'Does not hold'}**: {claim.text}", ""]
        lines += [*(f"- {figure}" for figure in claim.figures), ""]
    lines += ["![Integrity by method](pictures/integrity-methods.png)", ""]
    lines += ["![Forgetting against integrity, by patch strength](pictures/integrity-tradeoff.png)", ""]
    return "\n".join(lines)


def table(rows: Sequence[Row], task: str) -> list[str]:
    """A task's methods, a line each."""
    head = ("method", *(heading for heading, _ in COLUMNS.values()), "95 % interval of I", "setting")
    base = of(rows, task, methods(rows)[0])[0]["base clip score retain"]
    cells = [table_row(name, of(rows, task, name)) for name in methods(rows)]
    return [markdown_table(head, cells), "", f"CLIPScore of the base's pictures: {base:.2f}."]


def table_row(name: str, runs: Sequence[Row]) -> list[str]:
    """A method's cells."""
    star = "" if runs[0]["reached"] else " *"
    figures = [mean_and_range([run[key] for run in runs], form) for key, (_, form) in COLUMNS.items()]
    interval = f"{mean(runs, 'interval low'):.4f} to {mean(runs, 'interval high'):.4f}"
    return [f"{name}{star}", *figures, interval, shown(runs[0]["setting"])]


def claim_sight(rows: Sequence[Row]) -> Claim:
    """(a) Fréchet distance and CLIPScore overlook what the integrity loss shows.

    Two methods differ clearly in a figure when the 95 % interval of the difference does not contain 0.
    """
    figures, overlooked, unseen = [], 0, 0
    for task in tasks(rows):
        trained = [name for name in methods(rows) if len(of(rows, task, name)) > 1 and NO_HELP not in name]
        for first, second in combinations(trained, 2):
            clear = {figure: is_clear(apart(rows, task, first, second, figure)) for figure in ("integrity", *BLIND)}
            elsewhere = any(clear[figure] for figure in BLIND)
            overlooked += clear["integrity"] and not elsewhere
            unseen += elsewhere and not clear["integrity"]
            if clear["integrity"] and not elsewhere:
                figures.append(f"{task}: {first} and {second}, I {compared(rows, task, first, second)}")
    counts = (
        f"{overlooked} pairs of trained methods differ clearly in I, and in neither Fréchet distance nor CLIPScore",
        f"{unseen} pairs differ clearly in one of these and not in I",
    )
    text = "methods that Fréchet distance and CLIPScore cannot tell apart differ clearly in integrity loss"
    return Claim(text, overlooked > unseen, [*counts, *figures])


def claim_order(rows: Sequence[Row]) -> Claim:
    """(b) OVW and Saddle change other pictures less than ESD, SalUn and SA."""
    figures, holds = [], True
    for task in tasks(rows):
        figures.append(f"{task}: {', '.join(marked(rows, task, name) for name in (*OURS, *BASELINES))}")
        best = min(BASELINES, key=lambda name: mean(of(rows, task, name), "integrity"))
        for name in OURS:
            interval = apart(rows, task, name, best, "integrity")
            holds &= interval.high < 0
            figures.append(f"{task}: I of {name} and {best}, {compared(rows, task, name, best)}")
    text = "OVW and Saddle have a lower integrity loss than ESD, SalUn and SA at equal forgetting"
    return Claim(text, holds, figures)


def claim_help(rows: Sequence[Row]) -> Claim:
    """(c) L_help lowers the integrity loss."""
    figures, holds = [], True
    for task, name in product(tasks(rows), OURS):
        for without in (name + NO_HELP, name + PROTECTED + NO_HELP):
            held = without.removesuffix(NO_HELP)
            holds &= apart(rows, task, held, without, "integrity").high < 0
            figures.append(f"{task}: I of {held} with and without, {compared(rows, task, held, without)}")
    return Claim("without L_help, the integrity loss of OVW and Saddle rises", holds, figures)


def apart(rows: Sequence[Row], task: str, first: str, second: str, figure: str) -> Interval:
    """How two methods differ in a figure."""
    one, other = ([run["resampled"] for run in of(rows, task, name)] for name in (first, second))
    return difference(one, other, figure)


def compared(rows: Sequence[Row], task: str, first: str, second: str) -> str:
    """`0.0100 and 0.0200 (difference -0.0120 to -0.0080)`."""
    values = " and ".join(f"{mean(of(rows, task, name), 'integrity'):.4f}" for name in (first, second))
    low, high = apart(rows, task, first, second, "integrity")
    return f"{values} (difference {low:.4f} to {high:.4f})"


def draw_methods(rows: Sequence[Row], path: Path) -> None:
    """I of each method, a panel for each task."""

    def bars(axes: Any, task: str) -> None:
        names = methods(rows)[::-1]
        runs = [of(rows, task, name) for name in names]
        values = [mean(each, "integrity") for each in runs]
        below = [value - mean(each, "interval low") for value, each in zip(values, runs, strict=True)]
        above = [mean(each, "interval high") - value for value, each in zip(values, runs, strict=True)]
        colours = ["#4878a8" if each[0]["reached"] else "#c8c4bc" for each in runs]
        axes.barh(names, values, xerr=[below, above], color=colours, error_kw={"elinewidth": 1})
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(f"{figure_named('integrity').label}\ngrey: forgets less than 95 %")

    draw_panels(rows, bars, path)


def draw_tradeoff(rows: Sequence[Row], path: Path) -> None:
    """UA against I as the patch's strength grows, with the range over training seeds, a panel for each task.

    A method has one colour; protected rows have squares, or diamonds with held_wordings, those without L_help broken
    lines.
    """
    colours = dict(zip(dict.fromkeys(map(plain_name, methods(rows))), COLOURS, strict=False))

    def curves(axes: Any, task: str) -> None:
        for name in methods(rows):
            runs = [row["curve"] for row in of(rows, task, name)]
            (x, x_reach), (y, y_reach) = (spread(runs, key) for key in ("integrity", "ua"))
            line = "--" if name.endswith((NO_HELP, AS_WRITTEN)) else "-"
            marker = "D" if HELD in name else "s" if PROTECTED in name else "o"
            colour = colours[plain_name(name)]
            axes.errorbar(x, y, y_reach, x_reach, line, marker=marker, color=colour, label=name, ms=4, elinewidth=0.7)
        axes.set_xlabel(figure_named("integrity").label)
        axes.set_ylabel(figure_named("ua").heading if task == tasks(rows)[0] else "")
        axes.set_xscale("log")
        if task == tasks(rows)[-1]:
            axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)

    draw_panels(rows, curves, path)


def plain_name(name: str) -> str:
    """The method of a row, without what it was measured with."""
    return name.removesuffix(NO_HELP).removesuffix(AS_WRITTEN).removesuffix(HELD).removesuffix(PROTECTED)


def spread(runs: Sequence[Sequence[dict[str, float]]], key: str) -> tuple[list[float], list[list[float]]]:
    """Of curves of training seeds, at each point the mean, and how far it is to the lowest and to the highest."""
    points = [[point[key] for point in same] for same in zip(*runs, strict=True)]
    middle = [statistics.fmean(values) for values in points]
    below = [value - min(values) for value, values in zip(middle, points, strict=True)]
    above = [max(values) - value for value, values in zip(middle, points, strict=True)]
    return middle, [below, above]


def draw_panels(rows: Sequence[Row], fill: Callable[[Any, str], None], path: Path) -> None:
    """A picture with one panel for each task."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks(rows)), sharey=True), tasks(rows), strict=True):
        axes.set_title(f"forget {task}")
        axes.spines[["top", "right"]].set_visible(False)
        fill(axes, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def tasks(rows: Sequence[Row]) -> list[str]:
    """Their names, in the order of the rows."""
    return list(dict.fromkeys(row["task"] for row in rows))


def methods(rows: Sequence[Row]) -> list[str]:
    """Their names, in the order of the rows."""
    return list(dict.fromkeys(row["name"] for row in rows))


def of(rows: Sequence[Row], task: str, name: str) -> list[Row]:
    """The training seeds of one method on one task."""
    return [row for row in rows if (row["task"], row["name"]) == (task, name)]


def devices(rows: Sequence[Row]) -> str:
    """What the rows were computed on."""
    return " and ".join(sorted({row["device"] for row in rows}))


def mean(runs: Sequence[Row], figure: str) -> float:
    """Of a figure over training seeds."""
    return statistics.fmean(run[figure] for run in runs)


def marked(rows: Sequence[Row], task: str, name: str) -> str:
    """`ESD-x 0.2200 at UA 0.990`."""
    runs = of(rows, task, name)
    return f"{name} {mean(runs, 'integrity'):.4f} at UA {mean(runs, 'ua'):.3f}"


def mean_and_range(values: Sequence[float], form: str) -> str:
    """`mean (lowest to highest)`, each in a form of str.format."""
    low, middle, high = (form.format(value) for value in (min(values), statistics.fmean(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def shown(setting: dict[str, float]) -> str:
    """`help_weight 10, steps 25`."""
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())
