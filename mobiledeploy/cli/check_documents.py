"""The JSON documents of `doctor --json` and `device check --json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mobiledeploy.doctor import Check
from mobiledeploy.utils.json_model import JsonModel


class DoctorDocument(JsonModel):
    """What `mobiledeploy doctor --json` prints.

    Attributes:
        healthy: Whether `mobiledeploy export` can work.
        checks: Everything that was checked.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["mobiledeploy.doctor"] = "mobiledeploy.doctor"
    healthy: bool
    checks: tuple[Check, ...]


class DeviceDocument(JsonModel):
    """What `mobiledeploy device check --json` prints.

    Attributes:
        uri: The device.
        able: Whether it can run `.onnx`, `.pte` or `.tflite`.
        checks: Everything that was checked.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["mobiledeploy.device"] = "mobiledeploy.device"
    uri: str
    able: bool
    checks: tuple[Check, ...]
