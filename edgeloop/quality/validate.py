"""The recorded verdict on every sample: Great Expectations once per batch, the payload's own decoder once per row.

Last comes whether a photo is a near-duplicate of one on another side of the split.
Of a sample whose raw input stayed at the node, the features are checked instead, and no rule about the picture applies.
Samples that fail are not deleted: they get a verdict and a quarantine record with the reason, and training reads
accepted samples only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import BaseModel

from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.quality.ingest import quarantined
from edgeloop.quality.likeness import doubles
from edgeloop.quality.withheld import Backbones, digest_fault, withheld_fault
from edgeloop.samples.inputs import PAYLOAD_DIGEST, extras, input_digest, is_withheld
from edgeloop.samples.payloads import UndecodablePayload, decode_features, decode_image
from edgeloop.samples.records import Quarantined, Verdict, now
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Expectation, Service
from edgeloop.samples.table import Tables, one_of

if TYPE_CHECKING:
    import pandas as pd


class MalformedSuite(BadInput):
    """An expectation suite cannot be used; the message names the file or the expectation."""


class Check(BaseModel):
    """Outcome of one expectation on a batch."""

    expectation: str
    column: str
    severity: str
    passed: bool
    failing: int


class Validated(BaseModel):
    """What one validation found."""

    service: str
    checked: int = 0
    accepted: int = 0
    quarantined: int = 0
    checks: list[Check] = []
    reasons: dict[str, int] = {}
    """Quarantined rows by reason."""


def validate(tables: Tables, service: Service, suite: list[Expectation], store: ObjectStore | None = None) -> Validated:
    """Judge the samples that have no verdict yet. Running it again judges nothing twice.

    Args:
        tables: of the service.
        service: that the samples belong to.
        suite: expectations of the service, see :func:`suite_of`.
        store: knows the backbones whose embeddings may be learned from; without it their names go unchecked.

    Raises:
        MalformedSuite: Great Expectations does not know an expectation or its arguments.
        TableUnavailable, StoreUnavailable: the tables or the store do not answer.
    """
    pending = _pending(tables)
    result = Validated(service=service.name, checked=len(pending))
    if not pending:
        return result
    faults = _input_faults(pending, service, Backbones(store) if store else None)
    sound = [row for row in pending if row["sample_id"] not in faults]
    if sound:
        result.checks, failed = _run_on(sound, service, suite)
        faults |= failed
        faults |= doubles(tables, service, [row for row in sound if row["sample_id"] not in failed])
    _record(tables, pending, faults)
    result.quarantined = len(faults)
    result.accepted = len(pending) - len(faults)
    for reason in faults.values():
        result.reasons[reason] = result.reasons.get(reason, 0) + 1
    return result


def _pending(tables: Tables) -> list[dict[str, Any]]:
    """Whole rows of the samples that have no verdict."""
    judged = {row["sample_id"] for row in tables.read("verdicts", ["sample_id"])}
    names = [r["sample_id"] for r in tables.read("samples", ["sample_id"]) if r["sample_id"] not in judged]
    return tables.read("samples", where=one_of("sample_id", names)) if names else []


def _record(tables: Tables, pending: list[dict[str, Any]], faults: dict[str, str]) -> None:
    bad = [
        quarantined(
            {k: v for k, v in row.items() if k != "_decoded"}, faults[row["sample_id"]], "validation", "samples"
        )
        for row in pending
        if row["sample_id"] in faults
    ]
    tables.merge("quarantine", [to_row(q) for q in bad], Quarantined)
    at = now()
    verdicts = [
        Verdict(
            sample_id=row["sample_id"],
            accepted=row["sample_id"] not in faults,
            reason=faults.get(row["sample_id"]),
            at=at,
        )
        for row in pending
    ]
    tables.merge("verdicts", [to_row(v) for v in verdicts], Verdict)


def _input_faults(rows: list[dict[str, Any]], service: Service, backbones: Backbones | None) -> dict[str, str]:
    faults: dict[str, str] = {}
    for row in rows:
        try:
            fault = _input_fault(row, service, backbones)
        except UndecodablePayload as error:
            fault = str(error)
        if fault:
            faults[row["sample_id"]] = fault
    return faults


def _input_fault(row: dict[str, Any], service: Service, backbones: Backbones | None) -> str | None:
    """Why the input of a row cannot be used; what can be decoded is left in ``_decoded``."""
    if is_withheld(row):
        return withheld_fault(row, service, backbones)
    row["_decoded"] = _decode(row["payload"], service)
    return digest_fault(row, input_digest(row)) if PAYLOAD_DIGEST in extras(row) else None


def _decode(payload: bytes, service: Service) -> Any:
    if service.image:
        return decode_image(payload, service.image.size)
    return decode_features(payload, service.feature_names)


def _run_on(
    rows: list[dict[str, Any]], service: Service, suite: list[Expectation]
) -> tuple[list[Check], dict[str, str]]:
    """Run rules about pictures on the rows that have one, and all others on all rows; checks in the suite's order."""
    seen = [row for row in rows if "_decoded" in row]
    if len(seen) == len(rows):
        return run_suite(_frame(rows, service), suite)
    about = [_columns_of(rule) & PICTURE_COLUMNS for rule in suite]
    groups = [(rows, [i for i, hit in enumerate(about) if not hit])]
    groups += [(seen, [i for i, hit in enumerate(about) if hit])] if seen else []
    found: dict[int, Check] = {}
    failed: dict[str, str] = {}
    for part, numbers in groups:
        checks, failing = run_suite(_frame(part, service), [suite[i] for i in numbers])
        found |= dict(zip(numbers, checks, strict=True))
        failed |= failing
    return [found[i] for i in sorted(found)], failed


#: Columns of the frame that are made from the picture itself.
PICTURE_COLUMNS = frozenset({"brightness", "contrast", "payload_bytes"})


def _columns_of(rule: Expectation) -> set[str]:
    """The columns that an expectation may name: every text among its arguments."""
    values = [v if isinstance(v, list) else [v] for v in rule.kwargs.values()]
    return {text for value in values for text in value if isinstance(text, str)}


def _frame(rows: list[dict[str, Any]], service: Service) -> pd.DataFrame:
    """One row per sample: what it says of itself, and either its features or the statistics of its image."""
    import pandas as pd

    plain = ("sample_id", "device", "node", "prediction", "confidence", "selection_probability")
    frame = pd.DataFrame([{k: row[k] for k in plain} for row in rows])
    if service.image:
        pictures = [row.get("_decoded") for row in rows]
        frame["brightness"] = [np.nan if p is None else float(np.mean(p)) for p in pictures]
        frame["contrast"] = [np.nan if p is None else float(np.std(p)) for p in pictures]
        frame["payload_bytes"] = [len(row["payload"]) for row in rows]
        return frame
    values = np.stack([row["_decoded"] for row in rows]).astype(float)
    return pd.concat([frame, pd.DataFrame(values, columns=service.feature_names)], axis=1)


def suite_of(service: Service, folder: Path) -> list[Expectation]:
    """The service's expectations: those its YAML names, after the ranges that its features promise.

    Raises:
        MalformedSuite: the named suite does not exist in ``folder`` or does not parse.
    """
    own = service.expectations if isinstance(service.expectations, list) else _load(service.expectations, folder)
    ranges = [
        Expectation(
            type="expect_column_values_to_be_between",
            kwargs={"column": f.name, "min_value": f.min, "max_value": f.max},
        )
        for f in service.features or []
        if f.min is not None or f.max is not None
    ]
    return [*ranges, *own]


def _load(name: str, folder: Path) -> list[Expectation]:
    path = folder / f"{name}.yaml"
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [Expectation.model_validate(item) for item in value["expectations"]]
    except OSError as error:
        raise MalformedSuite(f"expectation suite {path} cannot be read ({error.strerror}): add it") from error
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise MalformedSuite(f"expectation suite {path} does not parse ({error!s:.200}): mend it") from error


def run_suite(frame: pd.DataFrame, suite: list[Expectation]) -> tuple[list[Check], dict[str, str]]:
    """Run ``suite`` on ``frame``; return the checks, and the reason per failing sample that must be set aside.

    Raises:
        MalformedSuite: an expectation or an argument is unknown, or its column is not in the frame.
    """
    if not suite:
        return [], {}
    results = _run_gx(frame, suite)
    checks: list[Check] = []
    failing: dict[str, str] = {}
    for number, rule in enumerate(suite):
        one = results[number]
        column = str(rule.kwargs.get("column", ""))
        if _raised(one.exception_info):
            raise MalformedSuite(f"{rule.type} on column {column!r} does not run: check its column and arguments")
        rows = [str(i["sample_id"]) for i in one.result.get("unexpected_index_list") or []]
        checks.append(
            Check(
                expectation=rule.type,
                column=column,
                severity=rule.severity,
                passed=bool(one.success),
                failing=len(rows),
            )
        )
        if rule.severity == "quarantine":
            failing |= dict.fromkeys(rows, f"{rule.type} failed on {column}")
    return checks, failing


def _run_gx(frame: pd.DataFrame, suite: list[Expectation]) -> dict[int, Any]:
    """Results of Great Expectations by the number of their rule; it does not keep the order."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    batch = (
        context.data_sources.add_pandas("batch")
        .add_dataframe_asset("samples")
        .add_batch_definition_whole_dataframe("all")
        .get_batch({"dataframe": frame})
    )
    built = gx.ExpectationSuite(name="suite", expectations=[_build(e, i) for i, e in enumerate(suite)])
    outcome = batch.validate(
        built, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["sample_id"]}
    )
    return {int(r.expectation_config.meta["rule"]): r for r in outcome.results if r.expectation_config}


def _raised(info: dict[str, Any] | None) -> bool:
    """Whether an expectation could not be run; the flag is at the top or below a metric's name."""
    if not info:
        return False
    return bool(info.get("raised_exception")) or any(
        isinstance(v, dict) and v.get("raised_exception") for v in info.values()
    )


def _build(rule: Expectation, number: int) -> Any:
    import great_expectations.expectations as gxe

    name = "".join(part.capitalize() for part in rule.type.split("_"))
    try:
        return getattr(gxe, name)(**rule.kwargs, meta={"rule": number})
    except AttributeError as error:
        raise MalformedSuite(
            f"unknown expectation {rule.type}: see Great Expectations' list of core expectations"
        ) from error
    except Exception as error:  # pydantic v1 errors of another class
        raise MalformedSuite(
            f"expectation {rule.type} with {rule.kwargs}: {' '.join(str(error).split())[:200]}"
        ) from error
