"""Errors of full disks say where there is no room."""

import errno
import os
import tempfile

import pytest

from mobiledeploy import cli
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.full_disk import explaining_no_room, no_room


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_file_is_named_or_else_the_folder_of_temporary_files(number):
    named = no_room(OSError(number, os.strerror(number), "/full/a"))
    assert named.message == f"Could not write /full/a: {os.strerror(number)}."
    unnamed = no_room(OSError(number, os.strerror(number)))
    assert f"temporary files in {tempfile.gettempdir()}" in unnamed.message
    assert "TMPDIR" in unnamed.remedy


def test_other_errors_stay_as_they_are():
    assert no_room(ValueError()) is None
    with pytest.raises(FileNotFoundError), explaining_no_room():
        raise FileNotFoundError(errno.ENOENT, "missing")


def test_a_full_disk_is_no_bug_of_a_command(monkeypatch, capsys):
    def command(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cli, "app", command)
    assert cli._run([]) == RuntimeFailedError.exit_code
    text = capsys.readouterr().err
    assert "Error: Could not write temporary files in" in text
    assert "bug" not in text


def test_an_exporter_of_another_library_without_room_says_where():
    with pytest.raises(RuntimeFailedError, match="No space left"), explaining_no_room():
        raise OSError(errno.ENOSPC, "No space left on device")
