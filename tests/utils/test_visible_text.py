"""Control characters and invisible ones become escapes; everything else stays."""

import pytest

from mobiledeploy.utils.visible_text import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("tabs\tand\nlines", "tabs\tand\nlines"),
        (
            "caf\xe9, \u732b, \U0001f469\u200d\U0001f33e",
            "caf\xe9, \u732b, \U0001f469\u200d\U0001f33e",
        ),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J", r"\x9b2J"),
        ("\r\b\x07\x00\x7f", r"\r\x08\x07\x00\x7f"),
        ("\u202e\u2066\u200b\ufeff", r"\u202e\u2066\u200b\ufeff"),
        ("\u2028\u2029", r"\u2028\u2029"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, expected):
    assert visible(text) == expected
