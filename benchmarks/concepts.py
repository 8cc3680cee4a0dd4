"""Twenty concepts at once, and one after the other, on the shipped model: `python -m benchmarks.concepts`.

Writes docs/concepts.md.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.contenders import SAMPLING, Contender, preset_row, settings_of
from benchmarks.sharing import start_log
from benchmarks.tasks import object_task
from benchmarks.world import DOCS
from unlearning_core.hosts.families import load
from unlearning_core.hosts.pictures import draw
from unlearning_core.methods import Method
from unlearning_core.methods.ovw import Ovw
from unlearning_core.metrics.forgetting import accuracies
from unlearning_core.metrics.lpips import Lpips
from unlearning_core.metrics.plan import prompt_seeds_of
from unlearning_core.patch import UnlearningPatch
from unlearning_core.presets import PRESETS
from unlearning_core.prompts import Prompts
from unlearning_core.reports.tables import settings_line
from unlearning_core.settings import Settings
from unlearning_core.tiny import MODEL
from unlearning_core.tiny.judge import Judge
from unlearning_core.tiny.world import CONCEPTS, STYLES, prompt
from unlearning_core.unlearn import unlearn

log = logging.getLogger(__name__)

SEEDS = range(1000, 1004)
OVW = Contender("OVW", "ovw")
SHORT = 80  # steps, one for each forget prompt
FORGOTTEN, KEPT = list(CONCEPTS)[:20], list(CONCEPTS)[20:]
PAGE = """# Many concepts

Written by `python -m benchmarks.concepts` on the shipped model. UA: share of 12 pictures of a concept (three styles,
four seeds) that no longer show it. I, the integrity loss (lower is better): mean LPIPS (alex, 128 px, fp32) of the
remaining prompts, with four seeds each.
Sampling: {sampling}.

## Twenty at once

One run for all. Overwritten: {forgotten}. Each becomes, in turn, one of these, which are retained: {kept}.

| method | lowest UA | mean UA | I of the other four |
|---|---|---|---|
{rows}

## One after the other

`cat face` becomes `dog face`; then, on the patched model, `car` becomes `house` (OVW, 60 steps, learning rate 1e-3).

| | UA of cat face | UA of car |
|---|---|---|
| after the first | {first_cat:.3f} | {first_car:.3f} |
| after the second | {second_cat:.3f} | {second_car:.3f} |
"""


class Bench:
    """The shipped model and its judge."""

    def __init__(self) -> None:
        self.model = load(MODEL)
        self.judge = Judge.load()
        self.lpips = Lpips("alex")

    def ua(self, concept: str) -> float:
        """UA of a concept on the model as it is now."""
        asked = [prompt(concept, style) for style in STYLES]
        prompt_seeds = prompt_seeds_of(asked, SEEDS)
        ua = accuracies(
            self.judge, draw(self.model, prompt_seeds, SAMPLING), [text for text, _ in prompt_seeds], asked
        ).ua
        assert ua is not None
        return ua

    def many(self, name: str, method: Method, settings: Settings) -> str:
        """A row of the first table."""
        patch = unlearn(self.model, method, many_prompts(), settings)
        prompt_seeds = prompt_seeds_of([prompt(concept, style) for concept in KEPT for style in STYLES], SEEDS)
        before = draw(self.model, prompt_seeds, SAMPLING)
        with self.model.patched(patch):
            after = draw(self.model, prompt_seeds, SAMPLING)
            values = [self.ua(concept) for concept in FORGOTTEN]
        integrity = self.lpips.distance(before, after).mean().item()
        row = f"| {name} | {min(values):.3f} | {statistics.fmean(values):.3f} | {integrity:.4f} |"
        log.info(row)
        return row

    def continual(self) -> dict[str, float]:
        """UA of two concepts after the first was forgotten, and after the second."""
        cat = self.forget("cat face", "dog face")
        with self.model.patched(cat):
            figures = {"first_cat": self.ua("cat face"), "first_car": self.ua("car")}
            with self.model.patched(self.forget("car", "house")):
                figures |= {"second_cat": self.ua("cat face"), "second_car": self.ua("car")}
        log.info("%s", figures)
        return figures

    def forget(self, concept: str, overwrite: str) -> UnlearningPatch:
        """OVW's patch for one concept."""
        return unlearn(self.model, Ovw(), object_task(concept, overwrite).prompts, settings_of(OVW, {"steps": 60}, 0))


def many_prompts() -> Prompts:
    """Each of FORGOTTEN, alone and in every style, becomes one of KEPT."""
    styles: Sequence[str | None] = (None, *STYLES)
    targets = [KEPT[index % len(KEPT)] for index in range(len(FORGOTTEN))]
    forget = tuple(prompt(concept, style) for concept in FORGOTTEN for style in styles)
    overwrite = tuple(prompt(target, style) for target in targets for style in styles)
    return Prompts(forget, overwrite, tuple(prompt(concept) for concept in KEPT))


def main() -> None:
    """The command line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    start_log()
    bench = Bench()
    presets = [PRESETS[name] for name in ("quick", "balanced")]
    settings = [settings_of(preset_row(each), {}, 0, len(many_prompts().forget)) for each in presets]
    rows = [bench.many(each.name, each.objective, its) for each, its in zip(presets, settings, strict=True)]
    rows.append(bench.many(f"balanced, {SHORT} steps", presets[-1].objective, replace(settings[-1], steps=SHORT)))
    page = PAGE.format(
        sampling=settings_line(SAMPLING.settings()),
        forgotten=", ".join(FORGOTTEN),
        kept=", ".join(KEPT),
        rows="\n".join(rows),
        **bench.continual(),
    )
    (DOCS / "concepts.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
