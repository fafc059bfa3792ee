"""Errors show no passwords."""

import pytest

from mobiledeploy.errors import RuntimeFailedError, UsageError, without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:secret@host/x: refused", "http://***@host/x: refused"),
        ("https://user:p@ss:word@host/x", "https://***@host/x"),
        ("(1) ftp://u:@a; (2) http://u:p@b", "(1) ftp://***@a; (2) http://***@b"),
        ("https://token@host/x and http://token@host", "https://***@host/x and http://***@host"),
        ("ssh://user@host:22", "ssh://user@host:22"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("mail a:b@c", "mail a:b@c"),
    ],
)
def test_user_and_password_of_urls_are_masked(text, shown):
    assert without_credentials(text) == shown


def test_messages_and_remedies_are_masked():
    error = UsageError("http://u:secret@h failed", remedy="Open http://u:secret@h.")
    assert "secret" not in f"{error} {error.message} {error.remedy} {error!r}"
    assert RuntimeFailedError("plain").remedy == ""
