"""What is told of a run while it works."""

from __future__ import annotations

from collections.abc import Iterator

from unlearning_core.progress import Pace, Progress, Reporter


def test_a_report_knows_its_phase() -> None:
    seen: list[Progress] = []
    report = Reporter(seen.append, 5)
    report.begin("sampling the base", 2)
    report()
    report.done = 2
    report.begin("training", 3)
    for loss in (3.0, 2.0, 1.0):
        report(loss)

    told = [(progress.phase, progress.step, progress.steps, progress.done) for progress in seen]
    assert told == [
        ("sampling the base", 1, 2, 1),
        ("training", 1, 3, 3),
        ("training", 2, 3, 4),
        ("training", 3, 3, 5),
    ]


def ticking(step: float) -> Iterator[float]:
    time = 0.0
    while True:
        yield time
        time += step


def test_the_time_that_is_left_follows_the_speed_of_the_phase() -> None:
    for seconds, first, later in ((2.0, "6 s", "4 s"), (600.0, "30 min", "20 min")):
        pace = Pace(ticking(seconds).__next__)
        lines = [pace.line("training", step, 5) for step in (1, 2, 3)]
        assert lines == [
            "training: step 1 of 5",
            f"training: step 2 of 5, {first} left",
            f"training: step 3 of 5, {later} left",
        ]
        assert pace.line("drawing", 3, 4) == "drawing: step 3 of 4"


def test_a_phase_without_steps_is_its_name() -> None:
    assert Pace().line("solving", 0, 0) == "solving"
