"""Errors for disks without room, where another library writes."""

from __future__ import annotations

import errno
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mobiledeploy.errors import RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def no_room(error: Exception) -> RuntimeFailedError | None:
    """Return the error to report if a disk is full or read-only: it says where, if known.

    Errors of a failed write name no file. Other libraries write to the folder for temporary files.
    """
    if not isinstance(error, OSError) or error.errno not in _NO_ROOM:
        return None
    if error.filename is not None:
        where, remedy = str(error.filename), "Free some room there."
    else:
        where = f"temporary files in {tempfile.gettempdir()}"
        remedy = "Free some room there, or name another folder in TMPDIR."
    return RuntimeFailedError(f"Could not write {where}: {error.strerror}.", remedy=remedy)


@contextmanager
def explaining_no_room() -> Iterator[None]:
    """Turn errors of a disk without room into errors that say where.

    Raises:
        RuntimeFailedError: a disk is full or read-only.
    """
    try:
        yield
    except OSError as error:
        if explained := no_room(error):
            raise explained from error
        raise
