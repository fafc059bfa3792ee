"""Atomic writes, checks of output paths, hashes of files, and the cache folder."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory, TemporaryFile, gettempdir

import platformdirs

from mobiledeploy.errors import (
    ArtifactError,
    DataError,
    MobileDeployError,
    RuntimeFailedError,
    UsageError,
)
from mobiledeploy.utils.uninterrupted import uninterrupted

CACHE_VARIABLE = "MOBILEDEPLOY_CACHE"
KEEP_NETWORKS_VARIABLE = "MOBILEDEPLOY_KEEP_NETWORKS"  # 0: exports keep no network in the cache
STDOUT = Path("-")  # as the path of a file to write
_SPECIAL = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    If it does not, because of an error, Ctrl-C or a full disk, `path` keeps its former content or
    stays absent. A symbolic link stays a link to the new file. A device or a pipe, such as
    `/dev/stdout`, is written to.

    Raises:
        RuntimeFailedError: the folder cannot be created or written, or the disk is full.
    """
    try:
        stream = _is_stream(path)
        target = path if stream else path.resolve()
        home = Path(gettempdir()) if stream else target.parent
        home.mkdir(parents=True, exist_ok=True)
        part = None
        try:
            with (
                uninterrupted(),
                NamedTemporaryFile(
                    dir=home, prefix=f".{target.name}.", suffix=".part", delete=False
                ) as handle,
            ):
                part = Path(handle.name)
            yield part
            if stream:
                target.write_bytes(part.read_bytes())
            else:
                part.chmod(0o666 & ~_umask())
                part.replace(target)
        finally:
            if part is not None:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a file atomically as UTF-8; `-` is stdout.

    Bytes in file names that are not valid text are written as escapes.

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
    """Yield a hidden folder inside `folder`; move its files to `folder` when the block succeeds.

    Files that belong together are replaced together: until then the former files stay as they are.
    Two commands that write to one folder move their files one after the other.

    Raises:
        RuntimeFailedError: a file cannot be moved, for example because a folder has its name.
            No file is moved then.
    """
    with contextlib.ExitStack() as stack:
        try:
            hidden = stack.enter_context(removed_when_done(".", ".part", folder))
        except OSError as error:
            raise _not_written(folder, error) from error
        try:
            yield hidden
        except RuntimeFailedError as error:  # users do not know the hidden folder
            message = error.message.replace(str(hidden), str(folder))
            raise type(error)(message, remedy=error.remedy) from error
        files = sorted(hidden.iterdir())
        require_writable_files(*(folder / file.name for file in files))
        with _alone_in(folder), uninterrupted():
            for file in files:
                try:
                    file.replace(folder / file.name)
                except OSError as error:
                    raise _not_written(folder / file.name, error) from error


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process holds a folder, and hold it, if the file system can do that."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def removed_when_done(
    prefix: str,
    suffix: str = "",
    dir: Path | None = None,  # noqa: A002 - as in tempfile
) -> Iterator[Path]:
    """Yield a new temporary folder, and remove it afterwards, which Ctrl-C cannot stop.

    The arguments are those of `tempfile.TemporaryDirectory`. What cannot be removed, for example
    because the disk has become read-only, stays.

    Raises:
        OSError: it cannot be created.
    """
    folder = None
    try:
        with uninterrupted():
            folder = TemporaryDirectory(suffix, prefix, dir, ignore_cleanup_errors=True)
        yield Path(folder.name)
    finally:
        if folder is not None:
            with uninterrupted():
                folder.cleanup()


@contextlib.contextmanager
def temporary_folder(needed_bytes: int) -> Iterator[Path]:
    """Yield a new folder for temporary files, and remove it afterwards.

    Args:
        needed_bytes: Room that the files will take. Runtimes that write there do not say that the
            disk is full.

    Raises:
        RuntimeFailedError: the folder cannot be created, or the disk has less room.
    """
    try:
        with removed_when_done(prefix="mobiledeploy-") as folder:
            free = shutil.disk_usage(folder).free
            if free < needed_bytes:
                raise RuntimeFailedError(
                    f"There is no room for temporary files in {folder.parent}:"
                    f" {free / 1e6:.1f} MB are free, {needed_bytes / 1e6:.1f} MB are needed.",
                    remedy="Free some room there, or name another folder in TMPDIR.",
                )
            yield folder
    except OSError as error:
        raise RuntimeFailedError(
            f"Could not write temporary files: {reason_of(error)}.",
            remedy="Free some room there, or name another folder in TMPDIR.",
        ) from error


def reason_of(error: Exception) -> str:
    """Return an error's own words; of an `OSError` without its number and its path."""
    return getattr(error, "strerror", None) or str(error) or repr(error)


def require_regular(path: Path, error: type[MobileDeployError]) -> None:
    """Raise `error` if an input cannot be a regular file or a folder.

    Pipes, sockets and devices may never end. A missing file is left to the code that opens it.
    """
    try:
        kind = _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as failure:  # no permission, a loop of links, a name that is too long
        raise error(
            f"Could not read {path}: {failure.strerror}.",
            remedy="Check the path and its permissions.",
        ) from failure
    if kind is not None:
        raise error(
            f"{path} is a {kind}; expected a regular file.",
            remedy="Save its content as a file, and pass that.",
        )


def require_images(path: Path) -> None:
    """Raise unless there is a folder or a regular file at the path of an image set.

    Raises:
        DataError: there is none.
    """
    require_regular(path, DataError)
    if not path.exists():
        raise DataError(
            f"There is no file or folder {path}.",
            remedy="Pass the path of a folder of images, or of an .npz with `images`.",
        )


def require_artifact(path: Path) -> None:
    """Raise unless `path` is a regular file that is not empty.

    Raises:
        ArtifactError: it does not exist, is empty, or is a folder, a pipe, a socket or a device.
    """
    require_regular(path, ArtifactError)
    if path.is_file():
        if not path.stat().st_size:
            raise ArtifactError(f"{path} is empty.", remedy="Export it again, or copy it again.")
        return
    found = f"{path} is a folder." if path.is_dir() else f"There is no file {path}."
    remedy = "Check the path, or create the artifact with `mobiledeploy export`."
    raise ArtifactError(found, remedy=remedy)


def require_artifact_folder(folder: Path) -> None:
    """Raise unless artifacts can be written to a folder and opened there; create the folder.

    Raises:
        UsageError: see `require_utf8`.
        RuntimeFailedError: see `require_writable`.
    """
    require_utf8(folder)
    require_writable(folder)


def require_utf8(path: Path) -> None:
    """Raise unless the runtimes can open a path.

    Raises:
        UsageError: the path is not valid UTF-8, which ONNX Runtime and ExecuTorch require.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The path {os.fsencode(path)!r} is not UTF-8: no runtime can open files there.",
            remedy="Rename the folder, or choose another one.",
        ) from error


def require_writable(folder: Path) -> None:
    """Create a folder if necessary, and raise unless files can be written to it.

    Called before minutes of work, so that a command does not fail after them.

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
    """Raise unless `write_text` can write all these files; create their folders.

    Called before minutes of work, so that a command does not fail after them.

    Args:
        paths: Outputs; None is skipped, `-` is stdout.
        read: Inputs of the command, which no output may overwrite; None is skipped.

    Raises:
        UsageError: two outputs are the same file, or an output is an input.
        RuntimeFailedError: a folder cannot be created or written, or a path is a folder.
    """
    require_different_files(*paths)
    require_no_overwrite(paths, read)
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
    """Raise if two outputs are the same file; None is skipped, and devices may be shared.

    Raises:
        UsageError: two outputs are the same file.
        RuntimeFailedError: a path cannot be resolved.
    """
    taken: set[Path] = set()
    for path in filter(None, paths):
        try:
            if _is_stream(path):
                continue
            file = _resolve(path)
        except (OSError, RuntimeError) as error:  # no permission; a loop of symbolic links
            raise _not_written(path, error) from error
        if file in taken:
            raise UsageError(
                f"Two outputs are {path}: one would overwrite the other.",
                remedy="Give each output its own file.",
            )
        taken.add(file)


def _resolve(path: Path) -> Path:
    """Return a path without links. From Python 3.13 on, `Path.resolve` accepts a loop of links."""
    file = path.resolve()
    if file.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return file


def require_no_overwrite(paths: Iterable[Path | None], read: Iterable[Path | None]) -> None:
    """Raise if an output would overwrite an input, such as an artifact or a baseline.

    Raises:
        UsageError: an output is an input.
    """
    inputs = {os.path.realpath(path) for path in read if path is not None}
    for path in filter(None, paths):
        if os.path.realpath(path) in inputs and not _is_stream(path):
            raise UsageError(
                f"{path} is an input of this command and would be overwritten.",
                remedy="Write to another file.",
            )


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _not_written(path: Path, error: OSError | RuntimeError) -> RuntimeFailedError:
    return RuntimeFailedError(
        f"Could not write {path}: {reason_of(error)}.",
        remedy="Choose a writable folder on a disk with free space.",
    )


def cache_folder() -> Path:
    """Return ``$MOBILEDEPLOY_CACHE``, or the platform's cache folder for mobiledeploy."""
    override = os.environ.get(CACHE_VARIABLE)
    return Path(override) if override else platformdirs.user_cache_path("mobiledeploy", False)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _umask() -> int:
    """Return the umask of this process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
