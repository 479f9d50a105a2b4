"""A layer's bytes are decided by its files alone, and it unpacks to them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.release.oci.tars import BadLayerPath, layer_tar

_NAME = st.from_regex(r"[a-zA-Z0-9_.-]{1,20}", fullmatch=True).filter(lambda name: name not in {".", ".."})
_FILES = st.dictionaries(st.lists(_NAME, min_size=1, max_size=3).map("/".join), st.binary(max_size=2000), max_size=6)


def fits(files: dict[str, bytes]) -> bool:
    """No file is a folder of another."""
    return not any(other.startswith(f"{path}/") for path in files for other in files)


@given(_FILES.filter(fits))
def test_it_unpacks_to_its_files(files: dict[str, bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer_tar(files)), mode="r:") as tar:
        entries = tar.getmembers()
        found = {e.name: tar.extractfile(e).read() for e in entries if e.isreg()}  # type: ignore[union-attr]
    assert found == files
    assert [e.name for e in entries] == sorted(e.name for e in entries)
    folders = {e.name for e in entries if e.isdir()}
    assert all("/".join(path.split("/")[:n]) in folders for path in files for n in range(1, path.count("/") + 1))


@given(_FILES.filter(fits))
def test_the_order_in_which_files_come_is_nothing(files: dict[str, bytes]) -> None:
    assert layer_tar(files) == layer_tar(dict(reversed(files.items())))


def test_it_is_the_same_in_another_process_of_another_place_and_time() -> None:
    code = (
        "import hashlib, os; os.umask(0o077); from edgeloop.release.oci.tars import layer_tar;"
        "print(hashlib.sha256(layer_tar({'models/b': b'2' * 999, 'models/a': b'1'})).hexdigest())"
    )
    strange = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7", "HOME": "/"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **strange})
    assert done.stdout.strip() == hashlib.sha256(layer_tar({"models/a": b"1", "models/b": b"2" * 999})).hexdigest()


def test_the_bytes_are_those_of_every_release_before() -> None:
    """Written down: another writer of tar would send every backbone of every fleet again."""
    made = hashlib.sha256(layer_tar({"models/config.json": b"{}"})).hexdigest()
    assert made == "2e3543a32e1c22f379bf16beb4252d537a047571da8fd3f5ad4c9036b17baa56"


def test_entries_say_nothing_of_who_wrote_them() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer_tar({"models/a": b"1"})), mode="r:") as tar:
        said = {(e.name, e.mode, e.mtime, e.uid, e.gid, e.uname, e.gname) for e in tar.getmembers()}
        assert tar.pax_headers == {}
    assert said == {("models", 0o755, 0, 0, 0, "", ""), ("models/a", 0o644, 0, 0, 0, "", "")}


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "models/../../x", "models//x", "./x", "", "a" * 300])
def test_a_path_that_leaves_the_layer_or_does_not_fit_is_refused(path: str) -> None:
    with pytest.raises(BadLayerPath):
        layer_tar({path: b""})
