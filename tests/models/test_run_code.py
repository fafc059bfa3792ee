"""Networks from the user's own code."""

import sys

import pytest
import torch

from mobiledeploy.errors import LoadError, UsageError
from mobiledeploy.models.code_source import source_file
from mobiledeploy.models.run_code import build_module

CODE = """
from torch import nn
import neighbour

def create(classes=2, width=1.0):
    return nn.Sequential(nn.Conv2d(3, int(8 * width), 3), nn.Flatten(), nn.Dropout()).train()

def fails():
    raise RuntimeError("no such variant")

def number():
    return 3
"""


@pytest.fixture
def code(tmp_path):
    (tmp_path / "neighbour.py").write_text("value = 1\n")
    (tmp_path / "net.py").write_text(CODE)
    yield tmp_path / "net.py"
    sys.modules.pop("neighbour", None)


def test_a_file_is_run_with_its_neighbours_and_arguments(code):
    before = list(sys.path)
    module = build_module(f"{code}:create", {"width": 0.5}, seed=0)
    assert module[0].out_channels == 4
    assert not any(each.training for each in module.modules())
    assert sys.path == before


def test_a_module_is_imported_by_name():
    module = build_module("torch.nn:Linear", {"in_features": 3, "out_features": 2}, seed=0)
    assert module.weight.shape == (2, 3)
    assert source_file("torch.nn").name == "__init__.py"


def test_the_seed_decides_random_weights_and_the_global_state_stays(code):
    state = torch.random.get_rng_state()
    one, same, other = (build_module(f"{code}:create", {}, seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("absent", UsageError, "no callable 'absent'. The module defines create, fails, number"),
        ("fails", LoadError, "failed, line 9: RuntimeError: no such variant"),
        ("number", UsageError, "returned a int; expected an nn.Module"),
        ("a b", UsageError, "names no code"),
    ],
)
def test_what_the_code_does_wrong_is_said(code, name, error, text):
    with pytest.raises(error, match=text):
        build_module(f"{code}:{name}", {}, seed=0)


@pytest.mark.parametrize(
    ("place", "text"),
    [("absent.py", "no file absent.py"), ("absent_package.x", "no module absent_package.x")],
)
def test_code_that_is_not_there_is_refused(place, text):
    with pytest.raises(LoadError, match=text):
        build_module(f"{place}:create", {}, seed=0)
