"""`requirements/ci.txt` pins every dependency of `pyproject.toml`, with hashes, without CUDA."""

import re
import tomllib

import pytest
from markdown_blocks import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
NEEDED = (*PROJECT["dependencies"], *PYPROJECT["build-system"]["requires"])
LOCK = (ROOT / "requirements" / "ci.txt").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE))


def wanted(extra):
    """Return the requirements of an extra and of those that it names."""
    found = []
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            found += [each for inner in sorted(requirement.extras) for each in wanted(inner)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("requirement", [*map(Requirement, NEEDED), *wanted("dev")], ids=str)
def test_every_dependency_is_pinned_to_a_version_that_is_allowed(requirement):
    version = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)


def test_every_pin_has_a_hash():
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) == len(PINS)
    for entry in entries:
        assert re.fullmatch(
            r"[\w.-]+==\S+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry
        ), entry


def test_torch_is_the_build_without_cuda():
    assert PINS["torch"].endswith("+cpu")
    assert [name for name in PINS if re.search("nvidia|cuda|triton", name)] == []
