"""Logs as one JSON object per line on stderr. Payloads never appear in them, and no fault floods them."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


#: Of lines that say the same of a service, so many are written in a window of so many seconds.
_LINES, _SECONDS = 5, 10.0


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


def start_logging(level: int = logging.INFO) -> None:
    """Send this process's logs to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(Repeats())
    logging.basicConfig(level=level, handlers=[handler], force=True)
