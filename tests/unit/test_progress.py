"""What is told of a run while it works."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from unlearning_core.progress import Budget, Pace, Progress, Reporter, curve


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
        ("sampling the base", 0, 2, 0),
        ("sampling the base", 1, 2, 1),
        ("training", 0, 3, 2),
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
            f"training: step 2 of 5, {first} left of this part",
            f"training: step 3 of 5, {later} left of this part",
        ]
        assert pace.line("drawing", 3, 4) == "drawing: step 3 of 4"


def test_a_phase_without_steps_is_its_name() -> None:
    assert Pace().line("solving", 0, 0) == "solving"


class Clock:
    """Stands still but for what is added to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_short_runs_spend_nothing() -> None:
    clock = Clock()
    budget = Budget(clock)
    clock.now = Budget.FIRST - 0.1
    assert not budget.allows(0)
    clock.now = Budget.FIRST
    assert budget.allows(0)


@given(step=st.floats(0.01, 20), looks=st.lists(st.floats(0.01, 5), min_size=1, max_size=200))
def test_what_is_looked_at_keeps_its_share(step: float, looks: list[float]) -> None:
    """Whatever a step and a look take, when it is known what a look will take."""
    clock = Clock()
    budget = Budget(clock)
    for seconds in looks:
        clock.now += step
        if budget.allows(seconds):
            before = clock.now
            with budget.spend():
                clock.now += seconds
            assert budget.last == clock.now - before
            assert not budget.allows(0)
        assert budget.spent <= Budget.SHARE * clock.now


def test_a_look_that_took_longer_is_paid_off_first() -> None:
    clock = Clock()
    budget = Budget(clock)
    clock.now = 10
    with budget.spend():
        clock.now += 2
    clock.now = (budget.spent + 1) / Budget.SHARE - 0.1
    assert not budget.allows(1)
    clock.now += 0.2
    assert budget.allows(1)


def test_a_look_may_be_kept_room_for() -> None:
    clock = Clock()
    budget = Budget(clock)
    clock.now = 10
    with budget.spend():
        pass
    fits = Budget.SHARE * 20
    assert budget.affords(fits, ahead=10)
    assert not budget.affords(fits + 0.01, ahead=10)
    assert not budget.affords(fits)


@given(st.lists(st.floats(-10, 10)), st.integers(1, 50))
def test_a_curve_has_few_points_of_all_values(values: list[float], points: int) -> None:
    found = curve(values, points)
    assert len(found) <= points
    assert bool(found) == bool(values)
    if len(values) <= points:
        assert found == values
    else:
        assert min(values) - 1e-9 <= min(found) <= max(found) <= max(values) + 1e-9
