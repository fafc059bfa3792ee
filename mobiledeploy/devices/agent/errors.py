"""How the agent says no."""

from __future__ import annotations


class RefusalError(Exception):
    """What the other side is to raise: a class of `mobiledeploy.errors` by name, and its texts."""

    def __init__(self, kind: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.reply = {"type": kind, "message": message, "remedy": remedy}
