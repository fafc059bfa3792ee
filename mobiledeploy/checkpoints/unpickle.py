"""Read a torch.save file without importing or running anything that it names.

Input: a path. Output: the file's content, in which a `StandIn` replaces every object that is
neither a tensor nor plain data. Invariant: the only functions that a pickle can call are those of
this module; a file that names a function to run commands is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, ClassVar, Final

import torch

from mobiledeploy.utils.quiet import quietly

# Modules and functions that no checkpoint needs. The stand-ins alone keep them from running: a file
# that names them is refused because it was made to do harm.
_SUSPICIOUS_MODULES: Final = frozenset(
    {
        *("os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "pty", "runpy", "ctypes"),
        *("importlib", "code", "codeop", "webbrowser", "commands", "signal", "pdb", "timeit"),
        *("urllib", "http", "ftplib", "requests", "pip", "multiprocessing", "asyncio"),
    }
)
_SUSPICIOUS_FUNCTIONS: Final = frozenset(
    {"eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint"}
)  # of builtins; io has `open`, too


class SuspiciousGlobalError(Exception):
    """A pickle names a function that runs commands; the text is its name."""


class StandIn:
    """Replaces an object of another library. It keeps its content and does nothing.

    Attributes:
        origin: Name of the object's class.
        attributes: The object's attributes.
        entries: The object's items, if it is a mapping.
    """

    origin: ClassVar[str] = ""
    dump_patches: ClassVar[bool] = False  # torch reads it from modules in its former format
    attributes: dict[str, Any]
    entries: dict[Any, Any]

    def __new__(cls, *_: object, **__: object) -> StandIn:  # noqa: PYI034 - what pickles call
        """Accept any arguments."""
        made = object.__new__(cls)
        made.attributes, made.entries = {}, {}
        return made

    def __init__(self, *_: object, **__: object) -> None:
        """Accept any arguments."""

    def __call__(self, *_: object, **__: object) -> StandIn:
        """Return another stand-in: some pickles call what a function returned."""
        return type(self)()

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, Mapping):
                self.attributes.update(part)

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def append(self, _: object) -> None:
        """Ignore an item."""

    extend = add = update = append


class _PlainDict(dict[Any, Any]):
    """Replaces every kind of dictionary, without attributes or a default factory."""

    __slots__ = ()

    def __init__(self, *args: object) -> None:
        content = args[-1] if args and isinstance(args[-1], Mapping | list | tuple) else ()
        super().__init__(content)

    def __setstate__(self, _: object) -> None:
        """Ignore attributes."""


class _Function:
    """A function that a pickle may call and cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)

    def __setstate__(self, _: object) -> None:
        raise pickle.UnpicklingError("a function has no state")


def _first(data: object = None, *_: object) -> object:
    """Return a parameter's tensor without its hooks and attributes."""
    return data


def _rebuild_from_type(function: Any, _: object, args: tuple[object, ...], *__: object) -> object:
    """Rebuild a tensor of a subclass, or with attributes, as a plain tensor."""
    return function(*args)


def _encode(text: str, encoding: str) -> bytes:
    """Return the bytes that protocol 2 stores as text."""
    return text.encode("latin1") if encoding in ("latin1", "latin-1") else b""


_REBUILDERS = (
    *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_sparse_tensor"),
    *("_rebuild_qtensor", "_rebuild_meta_tensor_no_storage"),
)
_ALLOWED: Final[Mapping[str, object]] = {
    **{f"torch._utils.{name}": _Function(getattr(torch._utils, name)) for name in _REBUILDERS},  # noqa: SLF001 - what torch.save names
    **{f"torch._utils.{name}": _Function(_first) for name in ("_rebuild_parameter",)},
    "torch._utils._rebuild_parameter_with_state": _Function(_first),
    "torch.nn.parameter.Parameter": _Function(_first),
    "torch._tensor._rebuild_from_type_v2": _Function(_rebuild_from_type),
    "torch.Size": _Function(tuple),
    "_codecs.encode": _Function(_encode),
    "copyreg._reconstructor": _Function(lambda cls, *_: cls()),
    **dict.fromkeys(("collections.OrderedDict", "collections.defaultdict"), _PlainDict),
    **dict.fromkeys(("collections.Counter", "builtins.dict"), _PlainDict),
    **{f"builtins.{name}": _Function(lambda items=(): list(items)) for name in ("set", "list")},
    "builtins.frozenset": _Function(lambda items=(): list(items)),
    "builtins.tuple": _Function(lambda items=(): tuple(items)),
}


def load_with_stand_ins(path: Path) -> tuple[object, tuple[str, ...]]:
    """Read a torch.save file and replace what would need code by stand-ins.

    Returns:
        The content, and the names of the classes and functions that were replaced.

    Raises:
        SuspiciousGlobalError: The file names a function that runs commands.
        Exception: Whatever torch and pickle raise for a damaged file.
    """
    replaced: dict[str, type[StandIn]] = {}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
            full = f"{module}.{name}"
            if full in _ALLOWED:
                return _ALLOWED[full]
            if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            if module.split(".")[0] in _SUSPICIOUS_MODULES or (
                module in ("builtins", "io", "_io") and name in _SUSPICIOUS_FUNCTIONS
            ):
                raise SuspiciousGlobalError(full)
            if full not in replaced:
                replaced[full] = type("StandIn", (StandIn,), {"origin": full})
            return replaced[full]

    def load(file: IO[bytes], **options: Any) -> object:
        return Unpickler(file, **options).load()

    reader = SimpleNamespace(__name__=__name__, Unpickler=Unpickler, load=load)
    with path.open("rb") as file, quietly():  # a path's suffix would decide over its content
        content = torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)
    return content, tuple(replaced)
