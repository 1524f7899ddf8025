"""Files that are either whole or not there."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write ``content`` (or what ``content(file)`` writes) so that ``path`` is old or new, never half.

    A temporary file in the same folder is written, flushed to the disk and renamed over ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # a write to a full disk does not say where, others name the temporary file
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: object) -> None:
    """Write ``content`` atomically as JSON, indented, keys in the order given; floats in full precision."""
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def locked(
    path: str | Path, waiting: Callable[[], None] | None = None, *, shared: bool = False
) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; call ``waiting`` once if another process holds it.

    ``shared`` ones are held together and keep exclusive ones out. The operating system releases a lock when
    its holder ends, however it ends.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, kind)
        yield


def is_locked(path: str | Path) -> bool:
    """Whether a process holds a lock on ``path``, shared or exclusive."""
    import fcntl

    try:
        with Path(path).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
