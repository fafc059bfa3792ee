"""Replace the paths of a node in manifests by those of the machine that started the sweep."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def back_to_driver(
    files: Mapping[str, bytes], inputs: Mapping[str, str], there: Path, here: Path
) -> dict[str, bytes]:
    """Return files as they would be if they had been made on the driver.

    Args:
        files: Contents by name; manifests end in `.json`, the others are not changed.
        inputs: Paths of the inputs on the driver by those on the node.
        there: Folder of the artifacts on the node.
        here: Folder of the artifacts on the driver.
    """
    texts = {}
    for node, driver in inputs.items():
        texts[json.dumps(node)] = json.dumps(driver)
        texts[json.dumps(_relative(node, there))] = json.dumps(_relative(driver, here))
    return {
        name: _replaced(content, texts) if name.endswith(".json") else content
        for name, content in files.items()
    }


def _relative(path: str, folder: Path) -> str:
    """Return a path as manifests record it beside the absolute one."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _replaced(content: bytes, texts: Mapping[str, str]) -> bytes:
    text = content.decode()
    for old, new in texts.items():
        text = text.replace(old, new)
    return text.encode()
