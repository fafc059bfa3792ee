"""Write a parity report in every form that was asked for, whole or not at all."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.errors import DataError, MobileDeployError, RuntimeFailedError
from mobiledeploy.parity.report.html import to_html
from mobiledeploy.parity.report.json_report import to_document
from mobiledeploy.parity.report.junit import error_to_junit, to_junit
from mobiledeploy.parity.report.markdown import to_markdown
from mobiledeploy.utils.files import require_unread, require_writable_files, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mobiledeploy.parity.types import ParityReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Where to write; None writes nothing, `-` is stdout.

    Attributes:
        summary: A file that Markdown is appended to as well; empty for none.
    """

    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    summary: str = ""
    html: Path | None = None

    @property
    def files(self) -> tuple[Path | None, ...]:
        """Return what is written whole."""
        return (self.json, self.junit, self.markdown, self.html)

    def require_unread(self, read: Iterable[Path | None]) -> None:
        """See that nothing overwrites what the command reads.

        Raises:
            UsageError: one would.
        """
        require_unread(self.files, read)

    def require_writable(self) -> None:
        """See that every file can be written, before the work and not after it.

        Raises:
            UsageError: two are the same.
            RuntimeFailedError: one cannot.
        """
        require_writable_files(*self.files)


def write_all(report: ParityReport, targets: Targets, manifest: Mapping[str, Any]) -> None:
    """Write the report.

    Raises:
        RuntimeFailedError: a file cannot be written.
    """
    if targets.json is not None:
        write_text(targets.json, json.dumps(to_document(report), indent=2) + "\n")
    if targets.junit is not None:
        write_text(targets.junit, to_junit(report))
    if targets.markdown is not None:
        text = to_markdown(report)
        write_text(targets.markdown, text)
        _append(targets.summary, text)
    if targets.html is not None:
        write_text(targets.html, to_html(report, manifest))


@contextmanager
def errors_reported(targets: Targets, artifacts: Sequence[Path]) -> Iterator[None]:
    """Write JUnit's `error` for what ends the block: CI must not show an older report.

    Raises:
        MobileDeployError: the same that ended the block.
    """
    try:
        yield
    except MobileDeployError as error:
        if targets.junit is not None:
            write_text(targets.junit, error_to_junit([path.name for path in artifacts], error))
        raise


def read_document(path: Path) -> object:
    """Read a report that was written as JSON.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"Could not read the report {path}: {error}",
            remedy="Write one with `mobiledeploy parity --json PATH`.",
        ) from error


def _append(path: str, text: str) -> None:
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as error:
        raise RuntimeFailedError(
            f"Could not append to {path}: {error.strerror}.",
            remedy="Check $GITHUB_STEP_SUMMARY, or leave --markdown out.",
        ) from error
