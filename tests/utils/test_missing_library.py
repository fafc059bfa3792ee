"""A library that is not installed is named, and a bug in mobiledeploy stays one."""

import sys

import pytest

from mobiledeploy.cli import _run
from mobiledeploy.utils.missing_library import missing_library


@pytest.mark.parametrize("name", ["pydantic", "scipy.special"])
def test_the_package_is_named(name):
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    found = missing_library(error)
    assert found is not None
    assert found.message.startswith(
        f"Cannot import the library {name.partition('.')[0]}: No module"
    )
    assert "mobiledeploy doctor" in found.remedy


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("gone", name="mobiledeploy.gone"),
        ImportError("cannot import name", name="json"),
        ImportError("no name"),
        ValueError("other"),
    ],
)
def test_other_errors_are_bugs(error):
    assert missing_library(error) is None


def test_a_command_says_what_to_do(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("mobiledeploy.cli.check_doc")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.setattr("mobiledeploy.doctor.examine", lambda: ())
    monkeypatch.setattr("mobiledeploy.cli.doctor._storage", lambda: ())
    assert _run(["doctor", "--json"]) == 4
    printed = " ".join(capsys.readouterr().err.split())
    assert "Cannot import the library pydantic" in printed
    assert "mobiledeploy doctor" in printed
    assert "bug" not in printed
