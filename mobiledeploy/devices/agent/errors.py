"""The agent's errors, which the other side raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobiledeploy.devices.request import ErrorReport

SETUP_REMEDY = "`mobiledeploy device setup URI` installs it into an environment of its own."


class AgentError(Exception):
    """An error that the other side raises as a class of `mobiledeploy.errors`.

    Args:
        kind: The name of that class.
        message: See `MobileDeployError`.
        remedy: See `MobileDeployError`.
    """

    def __init__(self, kind: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.report: ErrorReport = {"type": kind, "message": message, "remedy": remedy}
