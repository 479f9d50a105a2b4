"""What the command line says to a mistake that is none of a command's own."""

from __future__ import annotations

import json

import pytest

from edgeloop.cli import main


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int | str | None, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    out, err = capsys.readouterr()
    return left.value.code, out, err


def test_a_group_without_a_command_tells_its_commands_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "rollout")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith("Usage: edgeloop rollout") and any(line.strip().startswith("pause ") for line in lines)


def test_for_programs_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "rollout", "--json")
    assert code == 2 and json.loads(out)["error"] == "no command was given: see edgeloop rollout --help"
    assert err.count("\n") == 1


def test_a_mistyped_command_is_one_line_with_the_next_step(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "fleet", "lst")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("edgeloop: ") and err.endswith("see edgeloop fleet --help\n")
