"""Sums over the last hour, in constant memory: whole minutes leave together, and never early."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

MINUTE = 60.0
#: A minute leaves when all of it is at least an hour old.
LIVE_MINUTES = 61


class RollingHour:
    """Totals of several accounts over the last 60 to 61 minutes. One thread at a time.

    Minutes are whole numbers of a clock that never goes back.
    """

    def __init__(self, accounts: int) -> None:
        self.totals = [0] * accounts
        """Of each account, what was added in the last hour."""
        self.total = 0
        """Of all accounts."""
        self._minutes: deque[tuple[int, dict[int, int]]] = deque()

    def advance(self, minute: int) -> None:
        """Forget what is an hour older than ``minute``."""
        while self._minutes and self._minutes[0][0] + LIVE_MINUTES <= minute:
            for account, amount in self._minutes.popleft()[1].items():
                self.totals[account] -= amount
                self.total -= amount

    def add(self, minute: int, account: int, amount: int) -> None:
        """Add to the account in ``minute``, or in the newest minute if that is later."""
        if not self._minutes or self._minutes[-1][0] < minute:
            self._minutes.append((minute, {}))
        amounts = self._minutes[-1][1]
        amounts[account] = amounts.get(account, 0) + amount
        self.totals[account] += amount
        self.total += amount

    def minutes(self) -> Iterator[tuple[int, int]]:
        """(minute, what was added in it), oldest first."""
        return ((minute, sum(amounts.values())) for minute, amounts in self._minutes)
