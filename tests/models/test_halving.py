from __future__ import annotations

from collections import Counter

from models.halving import draw, rungs, successive_halving


def test_the_best_setting_wins_and_most_are_tried_on_little() -> None:
    settings = draw({"x": (0.1, 10.0), "y": (1.0, 2.0)}, {"x": 1.0, "y": 1.0}, 27, seed=4)
    asked: Counter[float] = Counter()

    def score(setting: object, share: float) -> float:
        asked[round(share, 3)] += 1
        return -abs(settings[settings.index(setting)]["x"] - 3.0)  # type: ignore[arg-type]  # one of them

    trials = successive_halving(settings, score, rungs(27))
    assert trials[0].setting == min(settings, key=lambda s: abs(s["x"] - 3.0))
    assert trials[0].share == 1.0
    assert len(trials) == 27
    assert asked[0.037] == 27
    assert asked[0.111] == 9
    assert asked[0.333] == 3
    assert asked[1.0] in (1, 2)
    assert any(trial.setting == settings[0] and trial.share == 1.0 for trial in trials), (
        "the yardstick is measured, too"
    )


def test_drawn_settings_are_within_their_ranges_and_repeat_with_the_seed() -> None:
    drawn = draw({"x": (0.5, 8.0)}, {"x": 100.0}, 50, seed=7)
    assert drawn[0] == {"x": 100.0}
    assert all(0.5 <= setting["x"] <= 8.0 for setting in drawn[1:])
    assert sum(setting["x"] < 2.0 for setting in drawn[1:]) in range(15, 36)  # even in the logarithm
    assert draw({"x": (0.5, 8.0)}, {"x": 100.0}, 50, seed=7) == drawn
    assert draw({"x": (0.5, 8.0)}, {"x": 100.0}, 50, seed=8) != drawn


def test_a_single_setting_is_tried_on_everything() -> None:
    (trial,) = successive_halving([{"x": 1.0}], lambda setting, share: share, rungs(1))
    assert (trial.share, trial.score) == (1.0, 1.0)
