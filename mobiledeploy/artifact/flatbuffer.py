"""Read flatbuffers by the schemas that ExecuTorch ships, with ExecuTorch's own flatc.

flatc can print JSON, but with six decimals: a scale of 1.9e-7 would read 0. Its generated Python
classes return exact values.
"""

from __future__ import annotations

import importlib.util
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.files import temporary_folder

# An object of a class that flatc generates; it has no static type.
Generated: TypeAlias = Any

_FLATC = "data/bin/flatc"
_BINDINGS_BYTES = 1_000_000
_REMEDY = "Install executorch again. `mobiledeploy doctor` shows the version that is needed."


@cache
def bindings(schema: str) -> ModuleType:
    """Return the module of classes that flatc generates for a schema (object API).

    Args:
        schema: Path of the `.fbs` inside the executorch package.

    Raises:
        RuntimeFailedError: the installed executorch has no such schema, its flatc does not run, or
            there is no room for temporary files.
    """
    package = _executorch()
    with temporary_folder(_BINDINGS_BYTES) as folder:
        command = [
            str(package / _FLATC),
            *("--python", "--gen-object-api", "--gen-onefile", "--gen-all"),
            *("-o", str(folder), str(package / schema)),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own argv
            (generated,) = folder.glob("*_generated.py")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise RuntimeFailedError(
                f"flatc could not read {schema} of the installed executorch: {error}.",
                remedy=_REMEDY,
            ) from error
        module = _import_file(generated)
    _fix_union_names(module)
    return module


def _executorch() -> Path:
    """Return the folder of executorch without importing it, which takes seconds."""
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeFailedError(
            "executorch is not installed.",
            remedy=_REMEDY,
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mobiledeploy_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fix_union_names(module: ModuleType) -> None:
    """Add XNodeUnionCreator for unions whose creator flatc 24 spells XnodeUnionCreator."""
    names = {name.lower(): name for name in vars(module)}
    for union in list(vars(module)):
        creator = names.get(f"{union}Creator".lower())
        if creator:
            setattr(module, f"{union}Creator", getattr(module, creator))
