"""Text that a terminal shows and does not obey."""

from __future__ import annotations

import unicodedata

# control characters (ESC), invisible ones (which also turn text around), and line separators
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
_KEPT = frozenset("\n\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")


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
