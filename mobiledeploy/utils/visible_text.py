"""Foreign text and values in a form that can be printed."""

from __future__ import annotations

import reprlib
import unicodedata

# control characters (ESC), invisible ones (which also turn text around), and line separators
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
_KEPT = frozenset("\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


def visible(text: str) -> str:
    r"""Return text with control and invisible characters as escapes; line ends and tabs stay.

    Names, labels and error messages of foreign files may hold sequences that clear a terminal,
    set its title or hide what follows.

    >>> visible("net\x1b[2J")
    'net\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        ascii(character)[1:-1]
        if unicodedata.category(character) in _INVISIBLE and character not in _KEPT
        else character
        for character in text
    )


def short_repr(value: object) -> str:
    """Return the `repr` of a value, cut short: aliases in YAML may repeat a list endlessly."""
    return _SHORT.repr(value)
