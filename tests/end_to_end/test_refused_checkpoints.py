"""Common mistakes with checkpoints: exit code 3, what was found, and a remedy."""

import os
import pickle

import pytest
import torch

from mobiledeploy.cli import main
from mobiledeploy.models.build import create
from mobiledeploy.models.spec import ModelSpec


@pytest.fixture(scope="module")
def state():
    return create(ModelSpec(family="v2", width=0.25, num_classes=7)).state_dict()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def truncated(path, state):
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:100_000])


def with_nan(path, state):
    poisoned = {**state, "features.0.0.weight": state["features.0.0.weight"] * float("nan")}
    torch.save(poisoned, path)


def whole(path, state):
    torch.save(state, path)


BAD = {
    "truncated file": (truncated, (), "is damaged", "download it again"),
    "wrong family": (whole, ("v1",), "has family v2; requested was family v1", "Request"),
    "wrong class count": (
        whole,
        ("v2", "--num-classes", "9"),
        "has num_classes 7; requested was",
        "Request",
    ),
    "extra keys": (
        lambda path, state: torch.save({**state, "neck.weight": torch.ones(2, 2)}, path),
        (),
        "it has 1 left over: neck.weight.",
        "Save the complete state dict of the network alone",
    ),
    "NaN weights": (
        with_nan,
        (),
        "features.0.0.weight has 216 values of 216 that are NaN",
        "completed training",
    ),
    "directory": (lambda path, _: path.mkdir(), (), "is a folder", "path of the file itself"),
    "empty file": (lambda path, _: path.touch(), (), "is empty", "Copy or download it again"),
    "pickle bomb": (
        lambda path, state: torch.save({"state_dict": state, "x": Bomb()}, path),
        (),
        "can only be read by running code that it names (posix.mkdir)",
        "convert it where its code is installed",
    ),
    "bare pickle bomb": (
        lambda path, _: path.write_bytes(pickle.dumps(Bomb())),
        (),
        "reading it would run code",
        "convert it",
    ),
    "three channels for one": (
        whole,
        ("v2", "--in-channels", "1"),
        "has in_channels 3; requested was in_channels 1",
        "Request the checkpoint's values",
    ),
}


@pytest.mark.parametrize(("make", "arguments", "found", "remedy"), BAD.values(), ids=BAD)
def test_the_command_reports_what_it_found_and_a_remedy(
    make, arguments, found, remedy, *, state, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "net.pth", state)
    with pytest.raises(SystemExit) as end:
        main(["export", *(arguments or ("v2",)), "--weights", "net.pth", "--int8", "--json"])
    printed = capsys.readouterr()
    assert (end.value.code, printed.out) == (3, "")
    message, _, hint = " ".join(printed.err.split()).rpartition("Error: ")[2].partition(" Try: ")
    assert message.startswith("net.pth")
    assert found in message
    assert remedy in hint
    assert {path.name for path in tmp_path.iterdir()} == {"net.pth"}
