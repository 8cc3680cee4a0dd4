"""What forgetting costs with each method at equal forgetting: `python -m benchmarks.integrity`.

On the shipped model: two tasks (an object, a style), every method, three training seeds. A small search, the same for
all, finds each method's weakest setting that forgets; only that one is compared. Writes docs/integrity.{csv,md}
and two figures, and keeps finished parts in benchmarks/measured, so that an interrupted command goes on where it
stopped, on another machine too. Empty that folder after a change to the code of a method. From nothing it takes some
hours on two cores.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, SAMPLING, Contender
from benchmarks.keeping import CACHE, kept
from benchmarks.report import write_csv, write_report
from benchmarks.sharing import add_machine, start_log, workers
from benchmarks.tasks import Task, object_task, style_task
from benchmarks.world import DOCS, found, shared_world, training_seeds


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3, help="training seeds of each method")
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", nargs="+", choices=names, help="measure these alone, into --csv in place of docs")
    parser.add_argument("--csv", type=Path, default=CACHE / "rows.csv", help="file for --only")
    add_machine(parser)
    args = parser.parse_args()
    start_log()
    tasks = (object_task(), style_task())
    chosen = [contender for contender in CONTENDERS if args.only is None or contender.name in args.only]
    with workers(args) as pool:
        pairs = list(product(tasks, chosen))
        list(pool.map(partial(found, device=args.device), pairs))
        runs = [(*pair, seed) for pair in pairs for seed in training_seeds(pair[1], args.seeds)]
        rows = list(pool.map(partial(measured, device=args.device), runs))
    if args.only:
        write_csv(rows, args.csv)
        return
    world = shared_world()
    costs = {(task.name, each.name): world.kept_cost(task, each) for task in tasks for each in CONTENDERS}
    write_report(
        [row | costs[row["task"], row["name"]] for row in rows],
        kept("scale", world.shared(), world.scale),
        {**SAMPLING.settings(), "precision": "float32", "LPIPS backbone": "alex"},
        DOCS,
    )


def measured(run: tuple[Task, Contender, int], device: str) -> dict[str, Any]:
    """The figures of one training seed, with its trade-off curve."""
    return shared_world(device).row(*run)


if __name__ == "__main__":
    main()
