"""Run the code that a user names to build a network.

Input: "FILE:CALLABLE" or "package.module:callable", and arguments. Output: an `nn.Module` in eval
mode. Invariant: no other code is executed than the named module,
what it imports, and the named callable.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import nn

from mobiledeploy.errors import LoadError, UsageError
from mobiledeploy.models.code_source import EXAMPLE, is_file, source_file, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from mobiledeploy.models.code_spec import Argument

T = TypeVar("T")


def build_module(code: str, arguments: Mapping[str, Argument], seed: int) -> nn.Module:
    """Run a callable and return the module that it builds, in eval mode.

    Args:
        code: "FILE:CALLABLE" or "package.module:callable".
        arguments: Keyword arguments of the callable.
        seed: Seed of torch's random numbers while it runs.

    Raises:
        UsageError: there is no such callable, or it does not return a module.
        LoadError: the code cannot be found, or it raises an error.
    """
    place, name = source_of(code)
    path = source_file(place)
    with _importable(path.parent if is_file(place) else None):
        source = _run(code, path, lambda: _import(place, path))
        function = _callable(source, name, code)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = _run(code, path, lambda: function(**arguments))
    if not isinstance(built, nn.Module):
        raise UsageError(
            f"{code} returned a {type(built).__name__}; expected an nn.Module.",
            remedy="Name a function or class that gives the network itself.",
        )
    return built.eval()


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let a file import its neighbours."""
    before = list(sys.path)
    sys.path.insert(0, str((folder or Path()).absolute()))
    try:
        yield
    finally:
        sys.path[:] = before


def _import(place: str, path: Path) -> ModuleType:
    if not is_file(place):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        if before is not None:
            sys.modules[path.stem] = before
    return module


def _callable(source: ModuleType, name: str, code: str) -> Callable[..., object]:
    found = getattr(source, name, None)
    if callable(found):
        return cast("Callable[..., object]", found)
    own = [
        each
        for each, value in vars(source).items()
        if callable(value) and getattr(value, "__module__", "") == source.__name__
    ]
    raise UsageError(
        f"{code}: there is no callable {name!r}."
        + (f" The module defines {', '.join(own)}." if own else ""),
        remedy=EXAMPLE,
    )


def _run(code: str, path: Path, action: Callable[[], T]) -> T:
    """Run the user's code; explain what it raises.

    Raises:
        LoadError: it raised an error, which is named with the line.
    """
    try:
        return action()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
        lines += [frame.lineno for frame in frames if Path(frame.filename) == path]
        where = f", line {lines[-1]}" if lines else ""
        raise LoadError(
            f"{code} failed{where}: {type(error).__name__}: {error}",
            remedy="Correct the code; --model-arg NAME=VALUE passes arguments to the callable.",
        ) from error
