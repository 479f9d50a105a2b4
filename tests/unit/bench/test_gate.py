"""The simulation of the gate counts what it says, and its candidates are what they are called."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgeloop.bench import gate as bench
from edgeloop.bench.gate import DRAWN, SPOILT, bench_gate, gate_text, upper_bound
from edgeloop.cli import cli


def test_the_bound_is_clopper_and_pearsons() -> None:
    """None of 500 is the rule of three: 1 - 0.05 ** (1 / 500)."""
    assert upper_bound(0, 500) == pytest.approx(1 - 0.05 ** (1 / 500))
    assert upper_bound(5, 500) == pytest.approx(0.02091, abs=1e-4)
    assert upper_bound(7, 7) == 1


@pytest.mark.parametrize(("samples", "share", "gain"), DRAWN.values(), ids=DRAWN)
def test_drawn_answers_have_the_gain_that_they_are_said_to_have(samples: int, share: float, gain: float) -> None:
    rng = np.random.default_rng(3)
    rounds = [bench._drawn(samples, share, gain)(rng) for _ in range(400)]
    gains = [float((r.candidate == r.truth).mean() - (r.champion == r.truth).mean()) for r in rounds]
    differ = [float((r.candidate != r.champion).mean()) for r in rounds]
    assert np.mean(gains) == pytest.approx(gain, abs=4 * np.sqrt(share / samples / 400))
    assert np.mean(differ) == pytest.approx(share, abs=0.01)


def test_lessons_are_spoilt_as_they_are_called() -> None:
    rng = np.random.default_rng(4)
    lesson = np.arange(400, dtype=np.float32)[:, None], np.arange(400, dtype=np.int64) % 10
    longer = np.zeros((800, 1), np.float32), np.zeros(800, np.int64)
    again = bench.resampled(rng, lesson, longer)
    assert (again[0][:, 0].astype(int) % 10 == again[1]).all()
    assert len(set(again[0][:, 0].tolist())) < 400
    shares = [float((bench.flipped(rng, lesson, longer)[1] != lesson[1]).mean()) for _ in range(60)]
    assert 0.05 < min(shares) < 0.2
    assert 0.3 < max(shares) < 0.47
    turned = bench.shuffled(rng, lesson, longer)
    assert (turned[1] == lesson[1]).all()
    assert (turned[0] != lesson[0]).mean() > 0.9
    assert bench.more_data(rng, lesson, longer) is longer


def test_a_gate_that_promotes_everything_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Yes:
        verdict = "pass"

    monkeypatch.setattr(bench, "decide", lambda *_, **__: Yes())
    monkeypatch.setattr(bench, "SPOILT", {"flipped": bench.flipped})
    result = bench_gate(10)
    by_name = {one.setting: one for one in result.played}
    assert by_name["flipped"].false >= 9
    assert by_name["equal models, few samples"].false == 10
    assert by_name["a true gain of 3 points, 8 % disagree"].power == 1


def test_the_command_prints_every_setting_and_is_repeatable() -> None:
    runs = [CliRunner().invoke(cli, ["--json", "bench", "gate", "--rounds", "10", "--seed", "5"]) for _ in range(2)]
    assert [run.exit_code for run in runs] == [0, 0], runs[0].output
    assert runs[0].stdout == runs[1].stdout
    value = json.loads(runs[0].stdout)
    assert [one["setting"] for one in value["played"]] == [*SPOILT, *DRAWN]
    assert sum(one["false"] for one in value["played"]) <= 1
    text = gate_text(bench.GateResult.model_validate(value))
    assert all(name in text for name in [*SPOILT, *DRAWN])
