"""What brings the object back, against what forgetting it cost: `python -m benchmarks.resistance`.

On the shipped model: the presets and some methods at the settings that benchmarks.integrity chose, three training
seeds, under attacks with seeds that no setting was tuned on. Writes docs/resistance.{csv,md} and a figure; finished
parts are kept in benchmarks/measured.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.contenders import AS_WRITTEN, CONTENDERS, SAMPLING, Contender, preset_row
from benchmarks.keeping import kept
from benchmarks.report import devices
from benchmarks.sharing import add_machine, start_log, workers
from benchmarks.tasks import object_task
from benchmarks.world import DOCS, World, found, shared_world, training_seeds
from unlearning_core.attacks import Attack
from unlearning_core.attacks.base import Host, Scene, judged_by
from unlearning_core.attacks.base import Task as AttackTask
from unlearning_core.attacks.embedding import Embedding
from unlearning_core.attacks.examine import UNSEEN, findings_of, make_scene
from unlearning_core.attacks.guidance import Guidance
from unlearning_core.attacks.img2img import Img2Img
from unlearning_core.attacks.plain import Plain
from unlearning_core.attacks.relearning import Relearning
from unlearning_core.attacks.wording import Wording
from unlearning_core.hosts.pictures import device_name
from unlearning_core.metrics.forgetting import target_of
from unlearning_core.metrics.plan import BASE
from unlearning_core.presets import PRESETS
from unlearning_core.prompts import quoted
from unlearning_core.reports.tables import markdown_table, settings_line

NAMES = ("Quick", "Balanced", f"Balanced{AS_WRITTEN}", "Thorough", "OVW", "OVW, protected", "ESD-x", "UCE")
THOROUGH = preset_row(PRESETS["thorough"])
FEW = replace(THOROUGH, name="Thorough, 8 adversaries", settings={**THOROUGH.settings, "adversaries": 8})
ATTACKED = [FEW, *(contender for contender in reversed(CONTENDERS) if contender.name in NAMES)]  # the longest first
TASK = object_task()
ATTACKS: Mapping[str, Attack] = {
    "plain": Plain(),
    "wording": Wording(changes=()),
    "guidance": Guidance(scales=(1.0,), steps=(10,)),
    "img2img": Img2Img(strengths=(0.7,)),
    "embedding": Embedding(starts=3),
    "relearning": Relearning(rates=(5e-4,), steps=(5, 20)),
}
ATTACK_TASK = AttackTask(
    TASK.forget, TASK.retain, SAMPLING, seed=3000, seeds=8, examples=24, wordings=(*TASK.framed, *TASK.names)
)
Row = dict[str, Any]  # one training seed of one model
Shares = Mapping[str, float]  # "attack: setting" -> share of pictures that show the concept
COLUMNS: Mapping[str, Callable[[Shares], float]] = {
    "as trained": lambda shares: shares["plain: the forget prompts"],
    "frames": lambda shares: statistics.fmean(worded(shares, TASK.framed)),
    "worst frame": lambda shares: max(worded(shares, TASK.framed)),
    "names": lambda shares: statistics.fmean(worded(shares, TASK.names)),
    "worst name": lambda shares: max(worded(shares, TASK.names)),
    "cfg 1": lambda shares: shares["guidance: cfg 1"],
    "img2img 0.7": lambda shares: shares["img2img: strength 0.7"],
    "embedding": lambda shares: max(shares[f"embedding: all tokens, start {start}"] for start in (1, 2, 3)),
    "one token": lambda shares: max(shares[f"embedding: one token, start {start}"] for start in (1, 2, 3)),
    "relearning, 5": lambda shares: shares["relearning: the concept, rate 0.0005, 5 steps"],
    "relearning, 20": lambda shares: shares["relearning: the concept, rate 0.0005, 20 steps"],
    "other things, 20": lambda shares: shares["relearning: other things, rate 0.0005, 20 steps"],
}
PAGE = """# What brings it back

Written by `python -m benchmarks.resistance` on the shipped model: `cat face` becomes `dog face`. Each cell is the share
of pictures that show the concept again, the mean over training seeds. I: integrity loss, of benchmarks.integrity.

* as trained: the measured prompts, 24 pictures.
* frames: 12 prompts in frames that are in no training prompt, mean and worst, 8 pictures each; names: the concept's two
  other names, alone and in each style. Nobody gave a model these names; `wordings` may have found them by itself.
* cfg 1: without guidance. img2img 0.7: from the base's pictures, at strength 0.7.
* embedding and one token: free token vectors fitted for 200 steps, the worst of three starts.
* relearning: fine-tuning on 24 pictures of the concept, rate 5e-4, after 5 and 20 steps; other things: on as many of
  those.

The two controls are explained in [attacks.md](attacks.md). Pictures: {pictures}. Computed on {devices}.

{table}

![What brings the object back, against the integrity loss](pictures/resistance.png)
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each method")
    add_machine(parser)
    args = parser.parse_args()
    start_log()
    jobs = [(contender, seed) for contender in ATTACKED for seed in training_seeds(contender, args.seeds)]
    with workers(args) as pool:
        list(pool.map(partial(found, device=args.device), [(TASK, contender) for contender in ATTACKED]))
        controls = pool.submit(control, args.device)
        rows = [*pool.map(partial(attacked, device=args.device), jobs)]
    rows = [*controls.result(), *rows]
    write_csv(rows, DOCS / "resistance.csv")
    page = PAGE.format(pictures=settings_line(SAMPLING.settings()), devices=devices(rows), table=table(rows))
    (DOCS / "resistance.md").write_text(page, encoding="utf-8")
    draw_frontier(rows, DOCS / "pictures" / "resistance.png")


def control(device: str) -> list[Row]:
    """The base's row, and that of the concept that it never drew."""
    world = shared_world(device)
    attack = {
        BASE: lambda: seen(world, scene_of(world)),
        UNSEEN: lambda: seen(world, scene_of(world).reversed()),
    }
    return [
        {"name": name, "seed": 0, "integrity": 0.0, **kept(f"attacks {name}", made_with(world.shared()), make)}
        for name, make in attack.items()
    ]


def attacked(job: tuple[Contender, int], device: str) -> Row:
    """The row of one training."""
    contender, seed = job
    world = shared_world(device)
    setting = world.found(TASK, contender)["setting"]

    def attack() -> Row:
        scene = scene_of(world)
        with world.model.patched(world.unlearned(TASK, contender, setting, seed)):
            return seen(world, scene)

    measured = world.row(TASK, contender, seed)
    shown = kept(f"attacks {contender.name} {seed}", made_with(world.made_with(contender, TASK, setting)), attack)
    return {"name": contender.name, "seed": seed, "integrity": measured["integrity"], **shown}


def made_with(model: str) -> str:
    """What the shares of a model depend on besides the code, from what that depends on."""
    return f"{model} {ATTACKS!r} {ATTACK_TASK!r}"


@cache
def scene_of(world: World) -> Scene:
    """The base's pictures that attacks work with; on the base."""
    return make_scene(world.model, ATTACK_TASK)


def seen(world: World, scene: Scene) -> Row:
    """The share in every setting, by the model as it is now, and where it is."""
    host = Host(world.model, lambda latents: world.model.decode(latents).cpu())
    shows = judged_by(world.judge, target_of(world.judge.domains, TASK.forget))
    findings = findings_of(host, scene, ATTACKS, shows)
    shares = {f"{found.attack}: {look.setting}": look.share for found in findings for look in found.looks}
    return {"shares": shares, "device": device_name(world.model.device)}


def worded(shares: Shares, prompts: Iterable[str]) -> list[float]:
    """Of each wording."""
    return [shares[f"wording: {quoted(prompt)}"] for prompt in prompts]


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """A line for each training seed: the columns of the page, then every setting."""
    settings = list(rows[0]["shares"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "seed", "integrity", *COLUMNS, *settings])
        for row in rows:
            shares = row["shares"]
            columns = [f"{of(shares):.4f}" for of in COLUMNS.values()]
            writer.writerow(
                [row["name"], row["seed"], row["integrity"], *columns, *(shares[name] for name in settings)]
            )


def table(rows: Sequence[Row]) -> str:
    """A line for each model."""
    cells = []
    for name, runs in by_name(rows).items():
        shares = [f"{statistics.fmean(of(run['shares']) for run in runs):.1%}" for of in COLUMNS.values()]
        cells.append([name, f"{cost(runs):.4f}", *shares])
    return markdown_table(("model", "I", *COLUMNS), cells)


def draw_frontier(rows: Sequence[Row], path: Path) -> None:
    """A panel for each of three attacks: its success against I, with the range over training seeds."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    columns = ("names", "embedding", "relearning, 20")
    for axes, column in zip(figure.subplots(1, len(columns), sharey=True), columns, strict=True):
        axes.set_title(column)
        axes.set_xlabel("I (integrity loss, lower is better)")
        axes.spines[["top", "right"]].set_visible(False)
        for name, runs in by_name(rows).items():
            if name not in (BASE, UNSEEN):
                shares = [COLUMNS[column](run["shares"]) for run in runs]
                middle = statistics.fmean(shares)
                reach = [[middle - min(shares)], [max(shares) - middle]]
                axes.errorbar(cost(runs), middle, yerr=reach, marker="o", linestyle="", elinewidth=0.7, label=name)
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The training seeds of each model."""
    return {name: [row for row in rows if row["name"] == name] for name in dict.fromkeys(row["name"] for row in rows)}


def cost(runs: Sequence[Row]) -> float:
    """I, the mean over training seeds."""
    return statistics.fmean(run["integrity"] for run in runs)


if __name__ == "__main__":
    main()
