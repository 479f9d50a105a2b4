"""Asking one person on a terminal: what is shown of a sample, and what an answer may be.

The model's own answer is not shown: people who see one agree with it too often. Questions go to stderr, so that stdout
keeps the outcome alone.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.labels.answers import ImpossibleLabel, keep, make_label
from edgeloop.learning.labels.label_studio import media_type
from edgeloop.learning.labels.queue import Request
from edgeloop.samples.payloads import decode_features
from edgeloop.samples.records import Label
from edgeloop.samples.service import Service


@dataclass
class Sitting:
    """What one person answered in one go."""

    labels: list[Label] = field(default_factory=list)
    skipped: int = 0


def read_line() -> str | None:
    """One line that was typed; None at the end of the input."""
    line = sys.stdin.readline()
    return line.strip() if line else None


def forgive_input() -> None:
    """Read bytes that are no text as characters that are no label, so that the question is asked again.

    Only before the first line is read.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")


def write(text: str) -> None:
    """Show one line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class Terminal:
    """Asks for one label after the other; each is durable before the next question."""

    def __init__(
        self, store: ObjectStore, service: Service, by: str, folder: Path, read: Callable[[], str | None] = read_line
    ) -> None:
        self._store = store
        self._service = service
        self._by = by
        self._folder = folder
        self._read = read
        self._labels = service.labels or [] if service.is_classifier else []
        self._skip, self._quit = (w if w not in self._labels else f"/{w}" for w in ("s", "q"))

    def ask(self, requests: Sequence[Request], payloads: Mapping[str, bytes]) -> Sitting:
        """Go through the queue until its end, ``q`` or the end of the input."""
        sitting = Sitting()
        write(self._menu())
        for number, one in enumerate(requests, 1):
            write(f"\n{number} of {len(requests)}, to {one.asked.purpose}: {one.sample_id[:12]}")
            write(self._shown(one.sample_id, payloads[one.sample_id]))
            if not self._take(one, sitting):
                break
        return sitting

    def _take(self, one: Request, sitting: Sitting) -> bool:
        """Read until there is an answer to ``one``; False when no more is wanted."""
        while (said := self._read()) is not None and said != self._quit:
            if said == self._skip:
                sitting.skipped += 1
                return True
            try:
                label = make_label(self._service, one.sample_id, self._named(said), self._by, one.asked)
            except ImpossibleLabel as error:
                write(str(error))
                continue
            keep(self._store, self._service, [label])
            sitting.labels.append(label)
            return True
        return False

    @property
    def _numbered(self) -> bool:
        """Whether a number may stand for a label: not where labels are numbers themselves."""
        return bool(self._labels) and not any(x.strip().isdecimal() for x in self._labels)

    def _named(self, said: str) -> str:
        if self._numbered and said.isdecimal() and 1 <= int(said) <= len(self._labels):
            return self._labels[int(said) - 1]
        return said

    def _menu(self) -> str:
        if not self._labels:
            target = self._service.target
            what = f"a number for {target.name}" if target else "a number"
        elif self._numbered:
            what = ", ".join(f"{n} {x}" for n, x in enumerate(self._labels, 1))
        else:
            what = ", ".join(self._labels)
        return f"answer with {what}; {self._skip} skips, {self._quit} quits"

    def _shown(self, name: str, payload: bytes) -> str:
        """The features by name, or the path of a file with the image."""
        if self._service.image is None:
            row = decode_features(payload, self._service.feature_names)
            return "\n".join(f"  {n} = {v:g}" for n, v in zip(self._service.feature_names, row, strict=True))
        path = self._folder / f"{name[:12]}.{media_type(payload).removeprefix('image/')}"
        path.write_bytes(payload)
        return f"  {path}"
