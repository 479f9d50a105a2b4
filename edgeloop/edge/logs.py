"""Logs as one JSON object per line on stderr. Payloads never appear in them, and no fault floods them.

An error's words may quote the input that it is about, so of errors that may be about one the log has only the kind.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:
    from logging import _SysExcInfoType

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


#: Of lines that say the same of a service, so many are written in a window of so many seconds.
_LINES, _SECONDS = 5, 10.0


def kind_of(error: BaseException) -> str:
    """What an error is, and what it came of, without words that may quote an input.

    Of a validation the fields are told, and what is wrong with them; of the operating system what it says.
    """
    return " of ".join(_named(each) for each in _all_of(error)[:5])


def _all_of(error: BaseException) -> list[BaseException]:
    """The error, what it came of and what it groups, each once."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if any(each is known for known in found):
            continue
        found.append(each)
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        before = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        waiting += [before] if before else ()
    return found


def _named(error: BaseException) -> str:
    name = type(error).__name__
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:5]
        return f"{name} at " + ", ".join(f"{'.'.join(map(str, f['loc'])) or 'all'} ({f['type']})" for f in faults)
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name}: {error.strerror}"
    return name


class Repeats(logging.Filter):
    """Leaves out lines that say the same again and again; the next one that is written says how many, ``left_out``."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, str, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it."""
        key = (record.name, str(record.msg), getattr(record, "service", None))
        since, count = self._windows.get(key, (record.created, 0))
        if not 0 <= record.created - since < _SECONDS:
            if count > _LINES:
                record.left_out = count - _LINES
            since, count = record.created, 0
        self._windows[key] = (since, count + 1)
        return count < _LINES


class JsonLines(logging.Formatter):
    """Message, level, time, logger, and whatever was given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _PLAIN}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)

    def formatException(self, ei: _SysExcInfoType) -> str:  # noqa: N802 (logging's name)
        """Where the error and what it came of were raised, the first one first, without their words."""
        errors = reversed(_all_of(ei[1]) if ei[1] else [])
        return "\n".join("".join((*traceback.format_tb(each.__traceback__), _named(each))) for each in errors)


def start_logging(level: int = logging.INFO) -> None:
    """Send this process's logs to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Repeats())
    logging.basicConfig(level=level, handlers=[handler], force=True)
