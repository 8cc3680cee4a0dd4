"""The comparison as a CSV, a Markdown page with the paper's claims, and two figures."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from unlearning_core.metrics.figure import figure_named
from unlearning_core.reports.tables import markdown_table, settings_line

Row = dict[str, Any]  # one training seed of one method on one task

SHOWN = (  # keys of unlearning_core.metrics.figure, in the order of the table
    "ua",
    "ira",
    "cra",
    "integrity",
    "noise floor",
    "forget distance",
    "frechet alexnet",
    "clip score retain",
)
COSTS: dict[str, str] = {  # what unlearning takes -> how it is printed
    "seconds": "{:.1f}",
    "network calls": "{:.0f}",
    "peak MB": "{:.0f}",
    "patch MB": "{:.2f}",
}
COLUMNS: dict[str, tuple[str, str]] = {  # key of a row -> heading and form
    **{figure.key: (figure.column, figure.format) for figure in map(figure_named, SHOWN)},
    **{key: (key, form) for key, form in COSTS.items()},
}
CSV_COLUMNS = (
    *("task", "name", "seed", "reached", "ua", "ira", "cra", "integrity", "interval low", "interval high"),
    *("noise floor", "forget distance", "frechet alexnet", "clip score retain", "base clip score retain", "patch MB"),
    *("seconds", "network calls", "peak MB"),
)
INTRODUCTION = """# What forgetting costs

Written by `python -m benchmarks.integrity` on the shipped model. Each method has twelve settings, three groups of four
from weak to strong; the first of a group with a UA of at least 95 % represents the group, and of these the one with the
lowest integrity loss is compared. Both choices are made on other seeds than those below, of the same prompts. A figure
is the mean over training seeds, with the lowest and highest in brackets where they differ; closed forms draw nothing at
random. A method marked * reached 95 % with none of its settings, so its integrity loss is not at equal forgetting.

UA: share of 48 forget pictures that no longer show the concept. IRA and CRA: shares of 48 retain pictures that show
their own label in the forgotten domain and in the other. I, the integrity loss (lower is better): mean LPIPS of the
retain pictures, from prompts that were not trained on. FD (AlexNet): Fréchet distance of the retain pictures from the
base's, on AlexNet's features. CLIPScore: of the retain pictures, by the shipped CLIP model. Seconds, calls of the
network and memory above the loaded model are those of unlearning from nothing, on a CPU with the first training seed.

Pictures: {pictures}.
The scale of I: among the base's pictures, another seed of the same prompt gives LPIPS {seed:.3f}, another prompt
{prompt:.3f}.

[methods.md](methods.md#what-the-comparison-shows) discusses these figures.
"""

OURS = ("OVW", "Saddle")
BASELINES = ("ESD-x", "SalUn", "SA")
NO_HELP = " without L_help"
BLIND = ("frechet alexnet", "clip score retain")  # what the first claim says overlooks damage


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
            pictures=settings_line(settings), seed=scale["another seed"], prompt=scale["another prompt"]
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

    Two methods count as told apart by a figure when its values over training seeds do not overlap, and clearly apart
    in I when the 95 % intervals over prompts do not.
    """
    overlooked, pairs = [], 0
    for task in tasks(rows):
        for first, second in combinations([name for name in methods(rows) if NO_HELP not in name], 2):
            runs = of(rows, task, first), of(rows, task, second)
            if min(len(each) for each in runs) > 1:
                pairs += 1
                same = all(overlap(*(ends(each, figure) for each in runs)) for figure in BLIND)
                if same and not overlap(*((mean(each, "interval low"), mean(each, "interval high")) for each in runs)):
                    values = ", ".join(
                        f"{name} {mean(each, 'integrity'):.3f}"
                        for name, each in zip((first, second), runs, strict=True)
                    )
                    overlooked.append(f"{task}: {values}")
    figures = [
        f"{len(overlooked)} of {pairs} pairs of trained methods: the same in both figures, apart in integrity loss",
        *overlooked,
    ]
    for task in tasks(rows):
        spans = {
            figure: ratio([mean(of(rows, task, name), figure) for name in (*OURS, *BASELINES)])
            for figure in ("integrity", *BLIND)
        }
        shown = ", ".join(f"{figure_named(key).heading} {value:.2f}" for key, value in spans.items())
        figures.append(f"{task}: highest over lowest, {shown}")
    text = "methods that the Fréchet distance and CLIPScore cannot tell apart differ clearly in integrity loss"
    return Claim(text, bool(overlooked), figures)


def claim_order(rows: Sequence[Row]) -> Claim:
    """(b) OVW and Saddle change other pictures less than ESD, SalUn and SA."""
    figures, holds = [], True
    for task in tasks(rows):
        highest = max(mean(of(rows, task, name), "integrity") for name in OURS)
        lowest = min(mean(of(rows, task, name), "integrity") for name in BASELINES)
        holds &= highest < lowest
        figures.append(f"{task}: {', '.join(marked(rows, task, name) for name in (*OURS, *BASELINES))}")
    return Claim(
        "OVW and Saddle have a lower integrity loss than ESD, SalUn and SA at equal forgetting", holds, figures
    )


def claim_help(rows: Sequence[Row]) -> Claim:
    """(c) L_help lowers the integrity loss."""
    figures, holds = [], True
    for task in tasks(rows):
        for name in OURS:
            with_help, without = (mean(of(rows, task, each), "integrity") for each in (name, name + NO_HELP))
            holds &= with_help < without
            figures.append(
                f"{task}, {name}: {with_help:.4f} with, {without:.4f} without, {without / with_help:.1f} times"
            )
    return Claim("without L_help, the integrity loss of OVW and Saddle rises", holds, figures)


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
        axes.set_xlabel(f"{figure_named('integrity').label}; grey: forgets less than 95 %")

    draw_panels(rows, bars, path)


def draw_tradeoff(rows: Sequence[Row], path: Path) -> None:
    """UA against I as the patch's strength grows, a panel for each task."""

    def curves(axes: Any, task: str) -> None:
        for name in methods(rows):
            points = next(row["curve"] for row in of(rows, task, name) if row["curve"])
            style = "--" if NO_HELP in name else "-"
            axes.plot([p["integrity"] for p in points], [p["ua"] for p in points], style, marker="o", ms=3, label=name)
        axes.set_xlabel(figure_named("integrity").label)
        axes.set_ylabel(figure_named("ua").heading)
        axes.set_xscale("log")
        if task == tasks(rows)[-1]:
            axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)

    draw_panels(rows, curves, path)


def draw_panels(rows: Sequence[Row], fill: Callable[[Any, str], None], path: Path) -> None:
    """A picture with one panel for each task."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks(rows))), tasks(rows), strict=True):
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


def mean(runs: Sequence[Row], figure: str) -> float:
    """Of a figure over training seeds."""
    return statistics.fmean(run[figure] for run in runs)


def ends(runs: Sequence[Row], figure: str) -> tuple[float, float]:
    """Lowest and highest of a figure over training seeds."""
    values = [run[figure] for run in runs]
    return min(values), max(values)


def overlap(first: tuple[float, float], second: tuple[float, float]) -> bool:
    """Whether two closed ranges do."""
    return first[0] <= second[1] and second[0] <= first[1]


def ratio(values: Sequence[float]) -> float:
    """Highest over lowest."""
    return max(values) / min(values)


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
