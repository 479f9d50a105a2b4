"""Which samples and labels were taken lately, so that one that is sent again is not taken twice.

What is in the spool is found there after a restart; which samples have been uploaded since is kept in a small file.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from edgeloop.samples.records import Label

_log = logging.getLogger(__name__)
#: 32 bytes of sample id, one that says what selected it.
_RECORD = 33
_CODES = {
    "audit": b"a",
    "confidence": b"c",
    "threshold": b"t",
    "margin": b"m",
    "entropy": b"e",
    "cross-entropy": b"x",
    "ibt": b"i",
    "novelty": b"n",
}
_NAMES = {code[0]: name for name, code in _CODES.items()}
_OTHER = "other"


def key_of(sample_id: str) -> bytes:
    """32 bytes that stand for a sample id."""
    try:
        key = bytes.fromhex(sample_id)
    except ValueError:
        key = b""
    return key if len(key) == 32 else hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).digest()


class Recent:
    """The last ``capacity`` captured samples and what selected each; after an upload and a restart, a name of a
    rule that this version does not know is ``other``.
    """

    def __init__(self, path: Path, capacity: int = 50_000) -> None:
        self._path = path
        self._old = path.with_suffix(".old")
        self._capacity = capacity
        self._by_id: OrderedDict[bytes, str] = OrderedDict()
        self._unwritten = b""
        for file in (self._old, path):
            self._read(file)

    def _read(self, file: Path) -> None:
        try:
            data = file.read_bytes() if file.exists() else b""
        except OSError as error:  # the cloud merges by id anyway
            _log.warning("recent samples were not read", extra={"error": str(error)})
            return
        for start in range(0, len(data) - _RECORD + 1, _RECORD):
            self._remember(data[start : start + 32], _NAMES.get(data[start + 32], _OTHER))

    def _remember(self, key: bytes, selected_by: str) -> None:
        self._by_id[key] = selected_by
        while len(self._by_id) > self._capacity:
            self._by_id.popitem(last=False)

    def add(self, sample_id: str, selected_by: str) -> None:
        """Remember a captured sample, in memory."""
        self._remember(key_of(sample_id), selected_by)

    def get(self, sample_id: str) -> str | None:
        """What selected this sample, if it was captured lately."""
        return self._by_id.get(key_of(sample_id))

    def keep(self, samples: Iterable[tuple[str, str]]) -> None:
        """Remember uploaded samples over a restart; what a failing disk does not take is tried with the next ones.

        Best effort: the cloud merges by id anyway.
        """
        self._unwritten += b"".join(key_of(name) + _CODES.get(by, b"o") for name, by in samples)
        self._unwritten = self._unwritten[-self._capacity * _RECORD :]
        try:
            self._append(self._unwritten)
        except OSError as error:
            _log.warning("recent samples were not written down", extra={"error": str(error)})
        else:
            self._unwritten = b""

    def _append(self, data: bytes) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        if size >= self._capacity * _RECORD:
            self._path.replace(self._old)
            size = 0
        with self._path.open("ab") as file:
            file.truncate(size - size % _RECORD)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


class RecentLabels:
    """What each of the last ``capacity`` speakers said last of a sample. In memory, and found again in the spool."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._said: OrderedDict[bytes, bytes] = OrderedDict()

    def add(self, label: Label) -> None:
        """Remember a label; it takes the place of what the same speaker said of the same sample before."""
        speaker, said = _digests(label)
        self._said[speaker] = said
        self._said.move_to_end(speaker)
        while len(self._said) > self._capacity:
            self._said.popitem(last=False)

    def __contains__(self, label: Label) -> bool:
        """Whether the speaker's last word on this sample is the same."""
        speaker, said = _digests(label)
        return self._said.get(speaker) == said


def _digests(label: Label) -> tuple[bytes, bytes]:
    speaker = "\0".join((label.sample_id, label.service, label.source, label.by))
    return _short(speaker), _short(label.label)


def _short(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
