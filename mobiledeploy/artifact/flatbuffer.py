"""Read flatbuffers by the schemas that ExecuTorch ships, through its own flatc.

flatc could print JSON, but prints floats with six decimals: a scale of 1.9e-7 would read 0. So it
generates Python instead, which reads every bit.
"""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from mobiledeploy.errors import RuntimeFailedError

# Objects of classes that flatc generates have no static types.
Generated: TypeAlias = Any

_FLATC = "data/bin/flatc"


@cache
def bindings(schema: str) -> ModuleType:
    """Return the classes that read a schema, as flatc's object API generates them.

    Args:
        schema: Path of the `.fbs` within the executorch package.

    Raises:
        RuntimeFailedError: the installed executorch lacks the schema or a flatc that runs.
    """
    package = _executorch()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(package / _FLATC),
            *("--python", "--gen-object-api", "--gen-onefile", "--gen-all"),
            *("-o", folder, str(package / schema)),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own argv
            (generated,) = Path(folder).glob("*_generated.py")
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise RuntimeFailedError(
                f"flatc could not read {schema} of the installed executorch: {error}.",
                remedy="Install executorch anew; `mobiledeploy doctor` says which version.",
            ) from error
        module = _imported(generated)
    _mend_union_names(module)
    return module


def _executorch() -> Path:
    """Return where executorch is installed, without importing it (which takes seconds)."""
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeFailedError(
            "executorch is not installed.", remedy="Install it; see `mobiledeploy doctor`."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mobiledeploy_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _mend_union_names(module: ModuleType) -> None:
    """Give unions such as XNodeUnion the creator that flatc 24 spells XnodeUnionCreator."""
    names = {name.lower(): name for name in vars(module)}
    for union in list(vars(module)):
        creator = names.get(f"{union}Creator".lower())
        if creator:
            setattr(module, f"{union}Creator", getattr(module, creator))
