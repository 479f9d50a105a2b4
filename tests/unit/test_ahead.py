"""Importing ahead makes modules ready and never fails for one that is not installed."""

from __future__ import annotations

import subprocess
import sys


def test_modules_are_imported_and_missing_ones_are_left_out() -> None:
    code = (
        "import sys; from edgeloop.ahead import import_ahead;"
        "t = import_ahead('colorsys', 'no_such_module_here', 'sndhdr_not_there', 'fractions'); t.join(10);"
        "print('colorsys' in sys.modules, 'fractions' in sys.modules, t.daemon)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "True"]
    assert not done.stderr
