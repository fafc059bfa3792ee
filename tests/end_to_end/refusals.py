"""What a command prints when it refuses, or when a gate fails."""

from subprocess import CompletedProcess


def refused(done: CompletedProcess[str], code: int, *messages: str) -> None:
    """Check the exit code, the messages, and that there is no traceback.

    Errors are on stderr. A failed gate (code 1) prints its results to stdout as well.
    """
    assert done.returncode == code, done.stderr
    if code != 1:
        assert done.stdout == ""
    printed = " ".join((done.stdout + done.stderr).split())
    for message in messages:
        assert message in printed
    assert "Traceback" not in printed
    assert "Unexpected" not in printed
