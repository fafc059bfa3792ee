"""Write docs/reference/api.md, the Python API reference, from the docstrings.

python docs/generate_api.py
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionKind, Parser

import mobiledeploy

_WIDTH = 88
PATH = Path(__file__).with_name("reference") / "api.md"
_HEADER = """# Python API

Generated from the docstrings by `python docs/generate_api.py`; a test compares the two.

Importing `mobiledeploy` does not import torch. The names of the section "Pipeline" are loaded from
their modules on first use. `StrPath` is `str | os.PathLike[str]`.
"""
# heading -> module -> names; None takes every public function and class of the module
_SECTIONS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "Pipeline": {"mobiledeploy": tuple(mobiledeploy.__all__)},
    "Networks": {"mobiledeploy.network": None},
    "Models, images and recipes": {"mobiledeploy.stages": None},
    "Architectures": {"mobiledeploy.models.spec": ("ArchitectureOptions",)},
    "Artifacts and results": {
        "mobiledeploy.artifact.artifact": ("Artifact",),
        "mobiledeploy.pipeline.deploy": ("Deployment",),
        "mobiledeploy.parity.types": ("ParityReport", "Rung", "Comparison"),
        "mobiledeploy.bench.results": ("Measurement",),
    },
    "Running artifacts": {
        "mobiledeploy.runtimes.open": ("open_runner",),
        "mobiledeploy.runtimes.runner": ("Runner",),
        "mobiledeploy.quantization.integer_reference": ("IntegerReference",),
        "mobiledeploy.utils.cpu_isa": ("limit_to_avx2",),
    },
    "Metrics": {"mobiledeploy.metrics": None, "mobiledeploy.significance": None},
    "Errors": {"mobiledeploy.errors": None},
}


def reference() -> str:
    """Return the whole page."""
    parts = [_HEADER]
    for heading, modules in _SECTIONS.items():
        parts.append(f"## {heading}\n")
        for name, chosen in modules.items():
            module = import_module(name)
            for each in chosen if chosen is not None else _public(module):
                parts += _entry(module, each)
    return "\n".join(parts)


def _public(module: Any) -> list[str]:
    """Return the public functions and classes that a module defines, in source order."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def _entry(module: Any, name: str) -> Iterator[str]:
    """Yield the paragraphs about one name; none about a value, which has no docstring."""
    value = getattr(module, name)
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return
    yield f"### {name}\n"
    yield _code(f"from {module.__name__} import {name}\n\n{_signature(name, value)}")
    yield from _paragraphs(value)
    if not inspect.isclass(value):
        return
    for member, function in vars(value).items():
        if member.startswith("_"):
            continue
        if inspect.isfunction(function):
            yield _code(_signature(f"{name}.{member}", function))
            yield from _paragraphs(function)
        elif isinstance(function, property):
            yield _code(f"{name}.{member}  # property")
            yield from _paragraphs(function.fget)


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


class _Raw(str):
    """An annotation or a default that a signature shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(name: str, value: Any) -> str:
    """Return a call with annotations, on one line if it fits, else with a parameter per line."""
    if inspect.isclass(value) and not is_dataclass(value):
        return f"class {name}({', '.join(base.__name__ for base in value.__bases__)})"
    parameters = [_parameter(p) for p in inspect.signature(value).parameters.values()]
    parameters = [p for p in parameters if p.name != "self"]
    if inspect.isclass(value):  # a dataclass: all of ours take keywords only
        arrow = ""
    else:
        arrow = f" -> {_Raw(inspect.signature(value).return_annotation)}"
    flat = f"{name}{inspect.Signature(parameters)}{arrow}"
    if len(flat) <= _WIDTH:
        return flat
    lines = list(map(str, parameters))
    keywords = [p.kind is p.KEYWORD_ONLY for p in parameters]
    if True in keywords:
        lines.insert(keywords.index(True), "*")
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){arrow}"


def _parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter that prints as it was written."""
    changed: dict[str, Any] = {}
    if isinstance(parameter.annotation, str):
        changed["annotation"] = _Raw(parameter.annotation)
    if is_dataclass(parameter.default):
        changed["default"] = _Raw(f"{type(parameter.default).__name__}()")
    if repr(parameter.default).startswith("<factory>"):  # of a dataclass
        changed["default"] = _Raw("...")
    return parameter.replace(**changed)


def _paragraphs(value: Any) -> Iterator[str]:
    """Yield a docstring as Markdown."""
    text = inspect.getdoc(value)
    assert text, f"{value} has no docstring"
    sections = Docstring(text, lineno=1).parse(Parser.google, warnings=False)
    for section in sections:
        if section.kind is DocstringSectionKind.text:
            yield f"{section.value}\n"
            continue
        title = _TITLES.get(section.kind)
        if title is None:
            continue
        yield f"*{title}:*\n"
        yield "".join(f"- {_item(section.kind, item)}\n" for item in section.value)


_TITLES = {
    DocstringSectionKind.parameters: "Arguments",
    DocstringSectionKind.attributes: "Attributes",
    DocstringSectionKind.returns: "Returns",
    DocstringSectionKind.yields: "Yields",
    DocstringSectionKind.raises: "Raises",
}


def _item(kind: DocstringSectionKind, item: Any) -> str:
    text = " ".join(str(item.description).split())
    if kind is DocstringSectionKind.raises:
        return f"`{item.annotation}`: {text}"
    name = getattr(item, "name", "")
    return f"`{name}`: {text}" if name else text


if __name__ == "__main__":
    PATH.write_text(reference())
