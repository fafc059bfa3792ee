"""Write a parity report in all requested formats."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.errors import MobileDeployError, RuntimeFailedError
from mobiledeploy.parity.report.json_report import to_document
from mobiledeploy.parity.report.junit import error_to_junit, to_junit
from mobiledeploy.parity.report.markdown import to_markdown
from mobiledeploy.utils.files import require_no_overwrite, require_writable_files, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mobiledeploy.artifact.manifest_schema import ManifestDocument
    from mobiledeploy.parity.types import ParityReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Where to write each format. None writes nothing, `-` is stdout.

    Attributes:
        json: Everything, versioned.
        junit: One test case per artifact and rung.
        markdown: The ladder as a table.
        summary: A file that the Markdown is also appended to; empty for none.
        html: One self-contained page.
    """

    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    summary: str = ""
    html: Path | None = None

    @property
    def files(self) -> tuple[Path | None, ...]:
        """Return the files that are written as a whole."""
        return (self.json, self.junit, self.markdown, self.html)

    def require_no_overwrite(self, read: Iterable[Path | None]) -> None:
        """Check that no report overwrites a file that the command reads.

        Raises:
            UsageError: a report would.
        """
        require_no_overwrite(self.files, read)

    def require_writable(self) -> None:
        """Check before the work that every file can be written.

        Raises:
            UsageError: two of the files are the same.
            RuntimeFailedError: a file cannot be written.
        """
        require_writable_files(*self.files)


def write_all(report: ParityReport, targets: Targets, manifest: ManifestDocument | None) -> None:
    """Write the report in all requested formats.

    Args:
        report: The report.
        targets: What to write where.
        manifest: The manifest of the first artifact, for the HTML.

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
        # imports matplotlib and jinja2, which the other formats do without
        from mobiledeploy.parity.report.html import to_html  # noqa: PLC0415

        write_text(targets.html, to_html(report, manifest))


@contextmanager
def errors_reported(targets: Targets, artifacts: Sequence[Path]) -> Iterator[None]:
    """Write an error that ends the block as JUnit, so that CI does not show an older report.

    Raises:
        MobileDeployError: the error that ended the block.
    """
    try:
        yield
    except MobileDeployError as error:
        if targets.junit is not None:
            write_text(targets.junit, error_to_junit([path.name for path in artifacts], error))
        raise


def _append(path: str, text: str) -> None:
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as error:
        raise RuntimeFailedError(
            f"Could not append to {path}: {error.strerror}.",
            remedy="Check $GITHUB_STEP_SUMMARY, or omit --markdown.",
        ) from error
