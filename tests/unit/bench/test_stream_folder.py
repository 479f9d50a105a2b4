"""A folder with a stream.yaml is a stream, and what is wrong with it is said with the file."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from edgeloop.bench.stream.data import EmptyBucket, LabelsMissing, UnknownLabel, WidthDiffers, check_stream
from edgeloop.bench.stream.folder import InvalidStream, StreamFile, UnknownStream, open_stream, read_stream
from edgeloop.bench.stream.methods import METHODS
from edgeloop.bench.stream.named import DamagedStream, MissingStream
from edgeloop.bench.stream.photos import NoBackbone, Photographs, UnreadablePhoto
from edgeloop.cli import cli, main
from edgeloop.errors import BadInput

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "pumps",
    "task": "classification",
    "metric": "accuracy",
    "label": "state",
    "group": "site",
    "buckets": ["2023.csv", "2024.parquet"],
}


def table(seed: int, rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    state = rng.integers(2, size=rows)
    return pd.DataFrame(
        {
            "site": [f"s{i // 2}" for i in range(rows)],
            "flow": state + rng.normal(size=rows) * 0.3 + seed * 0.2,
            "heat": rng.normal(size=rows),
            "state": np.where(state == 1, "worn", "good"),
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    define(tmp_path)
    table(0).to_csv(tmp_path / "2023.csv", index=False)
    table(1).to_parquet(tmp_path / "2024.parquet")
    return tmp_path


def define(folder: Path, **changes: Any) -> None:
    (folder / "stream.yaml").write_text(yaml.safe_dump(SPEC | changes), encoding="utf-8")


def photographs(folder: Path) -> Photographs:
    return Photographs(folder / "home", None, lambda _: None)


def test_tables_become_buckets(folder: Path) -> None:
    stream = read_stream(folder, photographs(folder))
    check_stream(stream)
    assert stream.labels == ("good", "worn")
    assert [b.name for b in stream.buckets] == ["2023.csv", "2024.parquet"]
    assert stream.buckets[1].rows.shape == (200, 2)
    assert stream.buckets[0].groups[:3].tolist() == ["s0", "s0", "s1"]
    assert stream.random_features == 300
    assert np.mean(stream.buckets[1].truth == (table(1)["state"] == "worn")) == 1


def test_rows_without_a_label_are_left_out_and_rows_without_a_group_are_their_own(folder: Path) -> None:
    holed = table(1).drop(columns="site")
    holed.loc[:9, "state"] = None
    holed.to_parquet(folder / "2024.parquet")
    table(0).drop(columns="site").to_csv(folder / "2023.csv", index=False)
    define(folder, group=None, ordered=True)
    stream = read_stream(folder, photographs(folder))
    assert len(stream.buckets[1].rows) == 190
    assert len(set(stream.buckets[0].groups.tolist())) == 200
    assert stream.buckets[0].previous[1] == stream.buckets[0].truth[0]


def test_a_packed_table_is_one_too(folder: Path) -> None:
    (folder / "2023.csv.gz").write_bytes(gzip.compress((folder / "2023.csv").read_bytes()))
    define(folder, buckets=["2023.csv", "2023.csv.gz"])
    first, second = read_stream(folder, photographs(folder)).buckets
    assert np.array_equal(first.rows, second.rows)


@pytest.mark.parametrize(
    ("changes", "fault", "message"),
    [
        ({"buckets": ["2023.csv"]}, InvalidStream, "buckets: "),
        ({"task": "regression"}, InvalidStream, "quantities are not compared yet: cut them into grades"),
        ({"colour": 1}, InvalidStream, "colour: "),
        ({"name": "No Name"}, InvalidStream, "name: "),
        ({"label": "grade"}, InvalidStream, "has no column 'grade'"),
        ({"group": "owner"}, InvalidStream, "has no column 'owner'"),
        ({"group": None}, InvalidStream, "a feature is not a number"),
        ({"buckets": ["2023.csv", "2025.csv"]}, InvalidStream, "is no folder and no .csv"),
        ({"buckets": ["2023.csv", "../2023.csv"]}, InvalidStream, "lies outside"),
        ({"labels": ["good"]}, UnknownLabel, "label 'worn' is not among good"),
        ({"buckets": ["2023.csv", "photos"]}, InvalidStream, "need the list of labels"),
        (
            {"buckets": ["2023.csv", "photos"], "labels": ["good", "worn"]},
            DamagedStream,
            "has no photos in good/, worn/",
        ),
        ({"buckets": ["2023.csv", "empty.csv"]}, EmptyBucket, "bucket empty.csv has no rows"),
        ({"buckets": ["2023.csv", "bare.csv"]}, LabelsMissing, "bucket bare.csv: none of 5 rows has a label"),
        (
            {"buckets": ["2023.csv", "wide.csv"]},
            WidthDiffers,
            "wide.csv has 3 features, 2023.csv has 2; not in both: wind",
        ),
        ({"buckets": ["2023.csv", "other.csv"]}, WidthDiffers, "not in both: heat, wind: give all the same columns"),
        ({"buckets": ["2023.csv", "noise.parquet"]}, InvalidStream, "does not read as a table"),
        ({"buckets": ["2023.csv", "nothing.csv"]}, InvalidStream, "does not read as a table"),
    ],
)
def test_a_fault_is_said_with_the_file(
    folder: Path, changes: dict[str, Any], fault: type[BadInput], message: str
) -> None:
    (folder / "photos").mkdir()
    (folder / "empty.csv").write_text("site,flow,heat,state\n", encoding="utf-8")
    (folder / "bare.csv").write_text("site,flow,heat,state\n" + "s,1,2,\n" * 5, encoding="utf-8")
    table(1).assign(wind=0.5).to_csv(folder / "wide.csv", index=False)
    table(1).rename(columns={"heat": "wind"}).to_csv(folder / "other.csv", index=False)
    (folder / "noise.parquet").write_bytes(b"noise")
    (folder / "nothing.csv").write_bytes(b"")
    define(folder, **changes)
    with pytest.raises(fault) as caught:
        read_stream(folder, photographs(folder))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_photos_need_a_backbone_and_must_be_readable(folder: Path) -> None:
    (folder / "photos" / "good").mkdir(parents=True)
    (folder / "photos" / "good" / "1.jpg").write_bytes(b"no photo")
    define(folder, buckets=["2023.csv", "photos"], labels=["good", "worn"])
    with pytest.raises(NoBackbone, match="--backbone"):
        read_stream(folder, photographs(folder))
    with pytest.raises(UnreadablePhoto, match=r"absent\.jpg cannot be read"):
        _rows_of(folder / "absent.jpg", folder)


def _rows_of(path: Path, folder: Path) -> None:
    photos = photographs(folder)
    photos._backbone = object()  # type: ignore[assignment]
    photos._path = folder
    photos.rows([path])


def test_a_name_needs_its_data(tmp_path: Path) -> None:
    with pytest.raises(UnknownStream, match="none of digits, cats-dogs, wine, elec, weather"):
        open_stream("beer", None, photographs(tmp_path))
    with pytest.raises(UnknownStream, match="--data DIR"):
        open_stream("digits", None, photographs(tmp_path))
    with pytest.raises(MissingStream, match=r"has no digits28\.npz"):
        open_stream("digits", tmp_path, photographs(tmp_path))
    (tmp_path / "digits28.npz").write_bytes(b"noise")
    (tmp_path / "elec.csv.gz").write_bytes(b"noise")
    for name in ("digits", "elec"):
        with pytest.raises(DamagedStream, match="fetch it again"):
            open_stream(name, tmp_path, photographs(tmp_path))


@pytest.mark.parametrize(("rows", "buckets"), [(480 * 3, 10), (700, 10)])
def test_a_stream_without_marks_is_cut_on_the_borders_of_groups(tmp_path: Path, rows: int, buckets: int) -> None:
    lines = ["f,class", *(f"{i}.0,{i % 2}" for i in range(rows))]
    (tmp_path / "weather.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    stream = open_stream("weather", tmp_path, photographs(tmp_path))
    assert len(stream.buckets) == buckets
    assert np.array_equal(np.concatenate([b.rows[:, 0] for b in stream.buckets]), np.arange(rows))
    groups = [set(b.groups.tolist()) for b in stream.buckets]
    assert sum(map(len, groups)) == len(set.union(*groups)) == -(-rows // 7)
    assert stream.buckets[1].previous[0] == stream.buckets[0].truth[-1]


def test_columns_are_known_by_name(folder: Path) -> None:
    straight = read_stream(folder, photographs(folder))
    table(1)[["heat", "state", "flow", "site"]].to_parquet(folder / "2024.parquet")
    turned = read_stream(folder, photographs(folder))
    assert np.array_equal(straight.buckets[1].rows, turned.buckets[1].rows)


def command(folder: Path, *words: str) -> list[str]:
    start = ["--home", str(folder / "home"), "bench", "stream", str(folder), "--seeds", "1", "--methods", "er"]
    return [*start, *words]


FAULTS: dict[str, tuple[pd.DataFrame, pd.DataFrame, str]] = {
    "one class": (table(0).assign(state="good"), table(1), "has only the label 'good'"),
    "fewer samples than classes": (table(0, 2).assign(state=["a", "b"]), table(1), "has 2 samples for 4 labels"),
    "all labels missing": (table(0), table(1).assign(state=None), "none of 200 rows has a label"),
    "constant features": (table(0).assign(flow=1.0, heat=2.0), table(1), "every feature is constant"),
    "another width": (table(0), table(1).assign(wind=1.0), "has 3 features"),
    "empty bucket": (table(0), table(1, 0), "bucket 2024.parquet has no rows"),
    "not a number": (table(0), table(1).assign(heat=np.inf), "is not a finite number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_one_line_and_exit_code_2(folder: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    start, later, message = FAULTS[fault]
    start.to_csv(folder / "2023.csv", index=False)
    later.to_parquet(folder / "2024.parquet")
    with pytest.raises(SystemExit) as ended:
        main(command(folder))
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_a_label_outside_of_the_set_is_bad_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    define(folder, labels=["good", "broken"])
    with pytest.raises(SystemExit) as ended:
        main(command(folder))
    assert ended.value.code == 2
    assert "label 'worn' is not among good, broken" in capsys.readouterr().err


def test_contradictory_labels_are_counted_and_no_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = table(1)
    twice.loc[[0, 1, 2], ["flow", "heat"]] = [1.5, -0.0]
    twice.loc[[3], ["flow", "heat"]] = [1.5, 0.0]
    twice.loc[[0, 1, 2, 3], "state"] = ["good", "good", "worn", "good"]
    twice.to_parquet(folder / "2024.parquet")
    with pytest.raises(SystemExit) as ended:
        main(command(folder))
    assert ended.value.code == 0
    assert "contradictory labels, rows that equal another of their bucket but for the label: 2024.parquet 4\n" in (
        capsys.readouterr().out
    )


def test_the_command_writes_what_it_prints(folder: Path) -> None:
    words = ["--json", str(folder / "out" / "r.json"), "--html", str(folder / "r.html"), "--budget", "20"]
    done = CliRunner().invoke(cli, command(folder, *words), catch_exceptions=False)
    assert done.exit_code == 0
    assert "pumps: 2023.csv -> 2024.parquet; 1 seeds" in done.stdout
    assert (folder / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    saved = json.loads((folder / "out" / "r.json").read_text(encoding="utf-8"))
    assert saved["stream"] == "pumps"
    assert saved["budget"] == 20
    assert not list(folder.glob("**/.*.part"))


@pytest.mark.parametrize("place", ["first", "bare", "last", "both"])
def test_json_with_a_path_writes_and_json_without_prints(
    folder: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(folder / "r.json")
    words = {
        "first": ["--json", *command(folder)],
        "bare": command(folder, "--json", "--limit", "100"),
        "last": command(folder, "--json"),
        "both": ["--json", *command(folder, "--json", path)],
    }
    with pytest.raises(SystemExit) as ended:
        main(words[place])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["stream"] == "pumps"
    assert not said.err
    assert (folder / "r.json").exists() == (place == "both")


def test_json_with_a_path_leaves_the_table_and_plain_failures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(folder / "r.json")
    with pytest.raises(SystemExit):
        main(command(folder, "--json", path))
    assert capsys.readouterr().out.startswith("pumps: ")
    with pytest.raises(SystemExit) as ended:
        main(command(folder, "--json", path, "--methods", "magic"))
    assert ended.value.code == 2
    assert not capsys.readouterr().out


def test_the_how_to_names_every_field() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "benchmark-a-stream.md"
    text = page.read_text(encoding="utf-8").split("## A stream of your own")[1].split("##")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(StreamFile.model_fields)
    methods = page.read_text(encoding="utf-8").split("## What is the same for all")[1].split("##")[0]
    named = {
        name for line in re.findall(r"^\| (`.*?) \|", methods, re.MULTILINE) for name in re.findall(r"`(.*?)`", line)
    }
    assert named == set(METHODS)
