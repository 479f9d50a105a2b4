"""A run as the demo would tell it: a bootstrap, two promotions, refused wrong labels, a promotion."""

from __future__ import annotations

from typing import Any

from edgeloop.demo.result import DemoResult
from edgeloop.samples.records import digest


def turn(number: int, champion: float | None, candidate: float | None, promoted: bool, **more: Any) -> dict[str, Any]:
    """One round as JSON would hold it."""
    given = {
        "round": number,
        "title": f"drift number {number}",
        "seen": 600 if number else 0,
        "sent": 150 if number else 0,
        "labelled": 140,
        "wrong_labels": False,
        "quarantined": 4,
        "candidate_accuracy": candidate,
        "champion_accuracy": champion,
        "promoted": promoted,
        "reason": "better than the champion" if promoted else "worse than the champion by 45 points",
        "version": str(number + 1),
        "seconds": {"stream": 4.0, "train": 2.5, "rollout": 3.0},
    }
    return given | more


def run(**more: Any) -> DemoResult:
    """The run, with some of its fields replaced."""
    given: dict[str, Any] = {
        "service": "cats-dogs",
        "metric": "accuracy",
        "seconds": 74.3,
        "simulated": "Simulated: the devices and the drift.",
        "rounds": [
            turn(0, None, 0.78, True),
            turn(1, 0.71, 0.846, True),
            turn(2, 0.80, 0.87, True),
            turn(3, 0.86, 0.41, False, wrong_labels=True, version="3"),
            turn(4, 0.84, 0.903, True, version="4"),
        ],
        "fleet": [
            {"node": "node-0", "ring": 0, "serving": digest(b"new"), "wanted": digest(b"new")},
            {"node": "node-1", "ring": 1, "serving": digest(b"old"), "wanted": digest(b"new")},
        ],
        "accuracy": {"first": 0.78, "last": 0.903},
        "pages": {
            "prefect": "http://127.0.0.1:4200",
            "mlflow": "http://127.0.0.1:5000",
            "report": None,
            "plot": None,
        },
    }
    return DemoResult.model_validate(given | more)
