"""Files that are whole or not there, and locks that die with their holder."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrstudy.files import locked, write_atomically, write_json


@pytest.mark.parametrize(
    "content", [b"new", "new", lambda file: file.write(b"new")], ids=["bytes", "str", "writer"]
)
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path, content):
    path = tmp_path / "folder" / "file"
    for _ in range(2):
        write_atomically(path, content)
        assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_text_is_utf_8_with_the_line_ends_it_has(tmp_path):
    write_atomically(tmp_path / "file", "é\r\n\n")
    assert (tmp_path / "file").read_bytes() == b"\xc3\xa9\r\n\n"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("before", [b"old", None], ids=["over an old file", "new file"])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path, error, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def fails(file) -> None:
        file.write(b"half of the new")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fails)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"file": before} if before else {})


def test_the_name_appears_only_when_the_content_is_on_the_disk(tmp_path, monkeypatch):
    """A rename that reaches the disk before the content would leave an empty file after a power cut."""
    path = tmp_path / "file"
    order = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)

        def recorded(*args, name=name, call=call):
            order.append((name, path.exists()))
            return call(*args)

        monkeypatch.setattr(os, name, recorded)
    write_atomically(path, b"content")
    assert order == [("fsync", False), ("replace", False)]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import os, sys\n"
        "from lrstudy.files import write_atomically\n"
        "def killed(file):\n"
        "    file.write(b'half'); file.flush(); os._exit(9)\n"
        "write_atomically(sys.argv[1], killed)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    assert path.read_bytes() == b"old"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_json_comes_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert json.loads(path.read_text("utf-8")) == value
    assert path.read_bytes().endswith(b"\n")


def test_json_keeps_the_order_and_every_digit(tmp_path):
    write_json(tmp_path / "file", {"b": 0.1 + 0.2, "a": "é"})
    assert (tmp_path / "file").read_text("utf-8") == '{\n "b": 0.30000000000000004,\n "a": "é"\n}\n'


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"a": Path()})
    assert (tmp_path / "file").read_text() == "1\n"


# ---------------------------------------------------------------------------------------------------- locks


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / "folder" / "lock"
    holder = contextlib.ExitStack()
    holder.enter_context(locked(path, lambda: pytest.fail("nobody holds it")))
    waited = []

    def ends() -> None:
        waited.append(True)
        holder.close()

    def refuses() -> None:
        raise BlockingIOError

    with locked(path, ends):
        assert waited == [True]
        with pytest.raises(BlockingIOError), locked(path, refuses):
            pass
    with locked(path, lambda: pytest.fail("nobody holds it any more")):
        pass


def test_a_lock_is_released_when_its_block_fails(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / "lock"):
        raise KeyError
    with locked(tmp_path / "lock", lambda: pytest.fail("still held")):
        pass


def test_a_lock_dies_with_the_process_that_holds_it(tmp_path):
    code = (
        "import sys\n"
        "from lrstudy.files import locked\n"
        "with locked(sys.argv[1]):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        waited = []

        def kill() -> None:
            waited.append(True)
            other.kill()

        with locked(tmp_path / "lock", kill):
            assert waited == [True]
