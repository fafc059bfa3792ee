"""Files that are either whole or absent, their fingerprints, and where we keep ours."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, TemporaryFile, gettempdir

import platformdirs

from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError

CACHE_VARIABLE = "MOBILEDEPLOY_CACHE"
STDOUT = Path("-")  # where a file to write is asked for


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there when the block succeeds.

    Until then nothing exists at `path` (or the former file does), also after Ctrl-C or a full disk.
    A link stays one, to a new file. What is no file (`/dev/stdout`, a pipe) is written to.

    Raises:
        RuntimeFailedError: the folder cannot be created or written, or the disk is full.
    """
    try:
        stream = _is_stream(path)
        target = path if stream else path.resolve()
        home = Path(gettempdir()) if stream else target.parent
        home.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            dir=home, prefix=f".{target.name}.", suffix=".part", delete=False
        ) as handle:
            part = Path(handle.name)
        try:
            yield part
            if stream:
                target.write_bytes(part.read_bytes())
            else:
                part.chmod(0o666 & ~_umask())
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all, as UTF-8; `-` is stdout.

    Names of files may hold bytes that are no text: those are written as escapes.

    Raises:
        RuntimeFailedError: see `write_whole`.
    """
    content = text.encode(errors="backslashreplace")
    if path == STDOUT:
        sys.stdout.write(content.decode())
        return
    with write_whole(path) as part:
        part.write_bytes(content)


@contextlib.contextmanager
def moved_when_done(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder inside `folder`; move its files up when the block succeeds.

    Until then the files that they replace are as they were: those that belong together change
    together.

    Raises:
        RuntimeFailedError: a file cannot be moved: a folder has its name. None is moved then.
    """
    with TemporaryDirectory(dir=folder, prefix=".", suffix=".part") as hidden:
        try:
            yield Path(hidden)
        except RuntimeFailedError as error:  # nobody will find the hidden folder
            seen = error.message.replace(hidden, str(folder))
            raise type(error)(seen, remedy=error.remedy) from error
        files = sorted(Path(hidden).iterdir())
        require_writable_files(*(folder / file.name for file in files))
        for file in files:
            try:
                file.replace(folder / file.name)
            except OSError as error:
                raise _not_written(folder / file.name, error) from error


def require_artifact(path: Path) -> None:
    """See that there is a file, of any kind.

    Raises:
        ArtifactError: there is none, or a folder.
    """
    if path.is_file():
        return
    found = f"{path} is a folder." if path.is_dir() else f"There is no file {path}."
    remedy = "Check the path, or make the artifact with `mobiledeploy export`."
    raise ArtifactError(found, remedy=remedy)


def require_home_for_artifacts(folder: Path) -> None:
    """See that artifacts can be written to a folder, and opened there: see `require_writable`.

    Raises:
        UsageError: see `require_utf8`.
        RuntimeFailedError: the folder cannot be created or written.
    """
    require_utf8(folder)
    require_writable(folder)


def require_utf8(path: Path) -> None:
    """See that the runtimes can open a path.

    Raises:
        UsageError: it is no text; ONNX Runtime and ExecuTorch open none that is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The path {os.fsencode(path)!r} is not UTF-8: no runtime could open a file there.",
            remedy="Rename it, or choose another one.",
        ) from error


def require_writable(folder: Path) -> None:
    """Make a folder where it is missing, and see that files can be written to it.

    To be told before the work of minutes, not after it.

    Raises:
        RuntimeFailedError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_written(folder, error) from error


def require_writable_files(*paths: Path | None, read: Iterable[Path | None] = ()) -> None:
    """See that `write_text` could write these; folders are made where they are missing.

    To be told before the work of minutes, not after it.

    Args:
        paths: None is nothing to write, `-` is stdout.
        read: Files that the command line names as inputs; None is nothing.

    Raises:
        UsageError: two are the same file, or one of them is read.
        RuntimeFailedError: a folder cannot be created or written, or a path is a folder.
    """
    require_different_files(*paths)
    require_unread(paths, read)
    for path in filter(None, paths):
        if path == STDOUT or _is_stream(path):
            continue
        if path.is_dir():
            raise RuntimeFailedError(
                f"Could not write {path}: it is a folder.",
                remedy=f"Name a file, e.g. {path / 'out'}.",
            )
        require_writable(path.resolve().parent if path.is_symlink() else path.parent)


def require_different_files(*paths: Path | None) -> None:
    """See that no two outputs are one file; None is nothing to write, and streams may be shared.

    Raises:
        UsageError: two are the same file.
        RuntimeFailedError: a path cannot be looked at.
    """
    taken: set[Path] = set()
    for path in filter(None, paths):
        try:
            if _is_stream(path):
                continue
            file = path.resolve()
        except (OSError, RuntimeError) as error:  # a closed folder; links in a ring
            raise _not_written(path, error) from error
        if file in taken:
            raise UsageError(
                f"Two of the outputs are {path}: one would overwrite the other.",
                remedy="Give each its own file.",
            )
        taken.add(file)


def require_unread(paths: Iterable[Path | None], read: Iterable[Path | None]) -> None:
    """See that no output would overwrite an input: an artifact, or the command's own baseline.

    Raises:
        UsageError: one would.
    """
    inputs = {os.path.realpath(path) for path in read if path is not None}
    for path in filter(None, paths):
        if os.path.realpath(path) in inputs and not _is_stream(path):
            raise UsageError(
                f"{path} is read by this command, which would then overwrite it.",
                remedy="Write to another file.",
            )


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _not_written(path: Path, error: OSError | RuntimeError) -> RuntimeFailedError:
    return RuntimeFailedError(
        f"Could not write {path}: {getattr(error, 'strerror', None) or error}.",
        remedy="Choose a folder that you may write to, on a disk with room for it.",
    )


def cache_folder() -> Path:
    """Return ``$MOBILEDEPLOY_CACHE``, or the platform's own cache folder for us."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override) if override else platformdirs.user_cache_path("mobiledeploy", False)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _umask() -> int:
    """Return this process's umask (which can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
