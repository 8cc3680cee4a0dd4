"""Figures and settings as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..attacks import ATTACKS
from ..attacks.base import Look
from ..attacks.examine import UNSEEN, Examination, Finding, strongest
from ..metrics.evaluation import Evaluation, shared_settings
from ..metrics.figure import FIGURES, Measured
from ..metrics.forgetting import Accuracies, Forgetting
from ..metrics.plan import BASE
from ..metrics.quality import Quality
from ..metrics.retention import Retention
from ..prompts import quoted

SCALE_BACKBONE, OTHER_SEED, OTHER_PROMPT = "alex", 0.167, 0.568  # of docs/integrity.md: LPIPS on the shipped model


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table; `|` and `\` in a cell have a backslash before them."""
    return "\n".join([_row(head), "|---" * len(head) + "|", *map(_row, rows)])


def settings_line(settings: Mapping[str, Any]) -> str:
    """`steps 25, cfg 7.0`."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def figure_table(measured: Measured) -> str:
    """Every figure of what was measured, a row each."""
    cells = [(figure.label, figure.cell(measured)) for figure in FIGURES if figure.in_table]
    return markdown_table(("figure", "value"), [(label, cell) for label, cell in cells if cell is not None])


def retention_sentences(retention: Retention) -> list[str]:
    """What the figures say, in words: what became of the concept, how far other pictures moved, beside what is known to
    move them, and which of them became another picture.
    """
    moved = f"Pictures of other things moved by {retention.integrity:.3f}, {_beside(retention)}."
    return [*_of_concept(retention), moved, *_exception(retention)]


def _of_concept(retention: Retention) -> list[str]:
    if retention.forget_distance is None:
        return []
    if retention.concept is None or retention.accuracies is None or retention.accuracies.ua is None:
        return [f"Pictures of the forget prompts moved by {retention.forget_distance:.3f}."]
    count = sum(each.votes for each in retention.accuracies.counts if each.figure == "ua")
    return [
        f"{quoted(retention.concept)} is gone in {retention.accuracies.ua:.0%} of {count} picture{'s' * (count > 1)}."
    ]


def _beside(retention: Retention) -> str:
    """The integrity loss against the noise floor, and against the shipped model's other seed and other prompt."""
    loss = retention.integrity
    if loss <= retention.noise_floor:
        return f"no more than in a second run of the base ({retention.noise_floor:.1e})"
    if retention.settings["LPIPS backbone"] != SCALE_BACKBONE:
        return f"in a second run of the base {retention.noise_floor:.1e}"
    if loss < OTHER_SEED / 3:
        return f"which is hard to see: another seed moves the shipped model's pictures by {OTHER_SEED}"
    if loss < OTHER_SEED:
        return f"less than another seed moves the shipped model's pictures (by {OTHER_SEED})"
    if loss < OTHER_PROMPT:
        return f"further than another seed moves the shipped model's pictures (by {OTHER_SEED})"
    return f"as far as another prompt moves the shipped model's pictures (by {OTHER_PROMPT})"


def _exception(retention: Retention) -> list[str]:
    """On the picture that moved furthest, where it is another one while most are not."""
    worst = retention.worst
    comparable = retention.settings["LPIPS backbone"] == SCALE_BACKBONE
    if not comparable or retention.integrity >= OTHER_SEED or worst.lpips < OTHER_SEED:
        return []
    return [f"{quoted(worst.prompt)} moved furthest, by {worst.lpips:.3f}: it has become another picture."]


def retention_page(retention: Retention) -> str:
    """A sentence, the figures, the prompts' distances, the integrity loss of each seed, and the settings."""
    rows = [(name, row) for name in ("forget", "retain") for row in getattr(retention, name)]
    seeds = ", ".join(f"{seed}: {value:.4f}" for seed, value in retention.per_seed.items())
    return "\n\n".join(
        [
            " ".join(retention_sentences(retention)),
            figure_table(Measured.of(retention)),
            markdown_table(("", "prompt", "LPIPS"), [(name, row.prompt, f"{row.mean:.4f}") for name, row in rows]),
            f"Integrity loss of each seed: {seeds}",
            settings_line(retention.settings),
        ]
    )


def forgetting_page(forgetting: Forgetting) -> str:
    """The judge's figures, and the settings."""
    return f"{figure_table(Measured.of(forgetting=forgetting))}\n\n{settings_line(forgetting.settings)}"


def quality_page(quality: Quality) -> str:
    """CLIPScore, CMMD and Fréchet distances, and the settings."""
    return f"{figure_table(Measured.of(quality=quality))}\n\n{settings_line(quality.settings)}"


def comparison_page(evaluations: Sequence[Evaluation], examination: Examination | None = None) -> str:
    """What the comparison says in words, and the leaderboard."""
    told, table = comparison_sentences(evaluations), leaderboard(evaluations, examination)
    return f"{' '.join(told)}\n\n{table}" if told else table


def comparison_sentences(evaluations: Sequence[Evaluation]) -> list[str]:
    """Which of several models moved other pictures least, and in how many pictures the concept is gone from each."""
    if len(evaluations) < 2:
        return []
    best, second = sorted(evaluations, key=lambda each: each.retention.integrity)[:2]
    first, other = best.retention, second.retention
    sure = first.interval is None or other.interval is None or first.interval.high < other.interval.low
    beside = "" if sure else "; their intervals overlap"
    least = f"{best.name} moves other pictures least, by {first.integrity:.3f}"
    shares = {each.name: each.retention.unlearning_accuracy for each in evaluations}
    gone = ", ".join(f"{share:.0%} ({name})" for name, share in shares.items() if share is not None)
    told = f"{least}; next is {second.name}, {other.integrity:.3f}{beside}."
    return [told, *([f"The concept is gone in {gone} of the pictures."] if gone else [])]


def leaderboard(evaluations: Sequence[Evaluation], examination: Examination | None = None) -> str:
    """One row a model, and below it the noise floor, the judge's own accuracy and the settings that all share.

    With an examination of the same models, what comes back under its strongest attack, and of the controls below.
    """
    measured = [evaluation.measured for evaluation in evaluations]
    values = {figure: [figure.of(each) for each in measured] for figure in FIGURES if figure.in_leaderboard}
    shown = {figure: column for figure, column in values.items() if any(value is not None for value in column)}
    cells = [["" if value is None else figure.text(value) for value in column] for figure, column in shown.items()]
    names = [evaluation.name for evaluation in evaluations]
    heads = ["model", *(figure.column for figure in shown)]
    if examination:
        heads.append("comes back ↓")
        cells.append([comeback_text(examination.findings[name]) for name in names])
    blocks = [markdown_table(heads, [list(row) for row in zip(names, *cells, strict=True)])]
    first = evaluations[0].retention
    blocks.append(f"Noise floor: {first.noise_floor:.1e} (the base model against a second run of it)")
    if first.base_accuracies:
        blocks.append(f"Judge: {first.judge}; on the base's pictures: {judge_text(first.base_accuracies)}")
    if examination:
        controls = ", ".join(f"{name} {comeback_text(examination.findings[name])}" for name in (BASE, UNSEEN))
        blocks.append(f"Comes back: under the strongest attack in its strongest setting; {controls}")
    return "\n\n".join([*blocks, settings_line(shared_settings(evaluations))])


def comeback_text(findings: Sequence[Finding]) -> str:
    """The share of pictures that show the concept under the strongest attack, and its name."""
    finding = strongest(findings)
    return f"{finding.strongest.share:.1%} ({ATTACKS[finding.attack].label})"


def attack_page(examination: Examination) -> str:
    """How much comes back at most; attacks down, models across, each with the share of its strongest setting; every
    setting; and the settings.
    """
    names = list(examination.findings)
    rows = [
        (ATTACKS[attack].label, *(_strongest(findings[row]) for findings in examination.findings.values()))
        for row, attack in enumerate(examination.attacks)
    ]
    looks = [
        (name, ATTACKS[finding.attack].label, look.label, *_share_cells(look))
        for name, findings in examination.findings.items()
        for finding in findings
        for look in finding.looks
    ]
    label = examination.target.label
    most = ", ".join(f"{name} {comeback_text(findings)}" for name, findings in examination.findings.items())
    return "\n\n".join(
        [
            f"{quoted(label)} comes back under the strongest attack in this share of pictures: {most}.",
            f"Share of pictures that show {quoted(label)}, in each attack's strongest setting",
            markdown_table(("attack", *names), rows),
            markdown_table(("model", "attack", "setting", "share", "95 % interval", "pictures"), looks),
            settings_line(examination.settings),
        ]
    )


def _strongest(finding: Finding) -> str:
    return f"{finding.strongest.share:.1%} ({finding.strongest.label})"


def _share_cells(look: Look) -> tuple[str, str, str]:
    low, high = look.interval
    return f"{look.share:.1%}", f"{low:.1%} to {high:.1%}", str(look.count)


def judge_text(base: Accuracies) -> str:
    """What the judge makes of the base's own pictures."""
    named = [("right", base.right), ("UA", base.ua), ("IRA", base.ira), ("CRA", base.cra)]
    return ", ".join(f"{name} {value:.1%}" for name, value in named if value is not None)


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
