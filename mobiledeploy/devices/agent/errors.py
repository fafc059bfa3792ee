"""How the agent says no."""

from __future__ import annotations

SETUP_REMEDY = "`mobiledeploy device setup URI` installs it into an environment of its own."


class RefusalError(Exception):
    """What the other side is to raise: a class of `mobiledeploy.errors` by name, and its texts."""

    def __init__(self, kind: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.reply = {"type": kind, "message": message, "remedy": remedy}
