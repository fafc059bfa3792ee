"""Text that XML 1.0 can hold."""

import re

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """Return text with each character that XML cannot hold replaced.

    Names of files may contain such characters: control characters, and bytes that are not UTF-8.
    """
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
