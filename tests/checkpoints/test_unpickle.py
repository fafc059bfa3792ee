"""Objects beside the weights are replaced, never imported, and never run."""

import argparse
import collections
import datetime
import decimal
import enum
import io
import os
import pickle
import pickletools
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.checkpoints.read import read_checkpoint
from mobiledeploy.checkpoints.unpickle import StandIn, load_with_stand_ins
from mobiledeploy.errors import WeightsError


class AttributeDict(dict):
    """As Lightning's hyper_parameters."""


class Recipe(enum.Enum):
    FAST = 1


class Trainer:
    def __init__(self) -> None:
        self.step = 3

    def run(self) -> None:
        raise AssertionError("code of the file was run")


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)


METADATA = {
    "defaultdict": lambda: collections.defaultdict(list, {"loss": [1.0]}),
    "uint8 array": lambda: np.zeros((5, 5), np.uint8),
    "float16 array": lambda: np.zeros(2, np.float16),
    "array of texts": lambda: np.array(["cat", "dog"]),
    "array of objects": lambda: np.array([1, "a"], dtype=object),
    "structured array": lambda: np.zeros(2, dtype=[("a", "i4")]),
    "masked array": lambda: np.ma.array([1.0]),
    "numpy RNG state": np.random.get_state,
    "numpy generator": lambda: np.random.default_rng(0),
    "torch RNG state": torch.get_rng_state,
    "datetime": lambda: datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC),
    "timedelta": lambda: datetime.timedelta(1),
    "decimal": lambda: decimal.Decimal("0.1"),
    "frozenset": lambda: frozenset("ab"),
    "set": lambda: {1, 2},
    "deque": lambda: collections.deque([1]),
    "Counter": lambda: collections.Counter("aab"),
    "SimpleNamespace": lambda: types.SimpleNamespace(lr=0.1),
    "Namespace": lambda: argparse.Namespace(lr=0.1, when=datetime.date(2024, 5, 1)),
    "AttributeDict": lambda: AttributeDict(lr=0.1),
    "enum": lambda: Recipe.FAST,
    "object": Trainer,
    "bound method": lambda: Trainer().run,
    "scheduler": lambda: torch.optim.lr_scheduler.StepLR(optimizer(), 1),
    "optimizer": optimizer,
    "module": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)),
    "exception": lambda: ValueError("x"),
    "class": lambda: Trainer,
    "function": lambda: len,
    "complex": lambda: 1j,
    "slice and range": lambda: (slice(1), range(3)),
    "dtype, device, size": lambda: (torch.float16, torch.device("cpu"), torch.Size([1])),
}


@pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", METADATA)
def test_the_weights_are_read_whatever_stands_beside_them(kind, legacy, tmp_path):
    weights = {
        "conv.weight": torch.randn(4, 3, 1, 1),
        "half": torch.randn(3).half(),
        "parameter": nn.Parameter(torch.randn(2, 3)),
        "view": torch.arange(12.0).reshape(3, 4).t()[1:],
        "counter": torch.tensor(3),
    }
    content = {"state_dict": collections.OrderedDict(weights), "extra": METADATA[kind]()}
    path = tmp_path / "net.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    state = read_checkpoint(path).content["state_dict"]
    stand_in_state = load_with_stand_ins(path)[0]["state_dict"]
    for found in (state, stand_in_state):
        assert list(found) == list(weights)
        for name, tensor in weights.items():
            assert torch.equal(found[name], tensor)
            assert found[name].dtype == tensor.dtype


def test_the_names_of_what_was_skipped_are_returned(tmp_path):
    content = {"w": torch.ones(1), "when": datetime.date(2024, 5, 1), "trainer": Trainer()}
    torch.save(content, tmp_path / "net.pth")
    found = read_checkpoint(tmp_path / "net.pth")
    assert found.stand_ins == ("datetime.date", f"{__name__}.Trainer")
    assert isinstance(found.content["trainer"], StandIn)
    assert found.content["trainer"].attributes == {"step": 3}


def test_no_module_of_the_file_is_imported(tmp_path):
    module = types.ModuleType("mobiledeploy_probe")
    module.Thing = type("Thing", (), {"__module__": "mobiledeploy_probe"})
    sys.modules["mobiledeploy_probe"] = module
    torch.save({"w": torch.ones(1), "thing": module.Thing()}, tmp_path / "net.pth")
    del sys.modules["mobiledeploy_probe"]
    found = read_checkpoint(tmp_path / "net.pth")
    assert found.stand_ins == ("mobiledeploy_probe.Thing",)
    assert "mobiledeploy_probe" not in sys.modules


def leave_a_mark(path) -> None:
    path.touch()


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize(
    ("function", "args"),
    [(os.system, ("true",)), (eval, ("1",)), (exec, ("1",)), (__import__, ("os",)), (open, ("x",))],
)
def test_a_file_that_names_a_dangerous_function_is_refused(function, args, tmp_path):
    torch.save({"w": torch.ones(1), "x": Call(function, *args)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="can only be read by running code that it names"):
        read_checkpoint(tmp_path / "net.pth")


def test_functions_of_the_file_are_not_called(tmp_path):
    content = {"w": torch.ones(1), "x": Call(leave_a_mark, tmp_path / "mark"), "y": Trainer().run}
    torch.save(content, tmp_path / "net.pth")
    assert torch.equal(read_checkpoint(tmp_path / "net.pth").content["w"], torch.ones(1))
    assert not (tmp_path / "mark").exists()


def crafted(path, program: bytes) -> None:
    """Write a checkpoint whose pickle is a program of one's own."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1)}, buffer)
    reader = torch._C.PyTorchFileReader(io.BytesIO(buffer.getvalue()))
    writer = torch._C.PyTorchFileWriter(str(path))
    for record in reader.get_all_records():
        content = program if record == "data.pkl" else reader.get_record(record)
        if record not in ("version", ".data/serialization_id"):
            writer.write_record(record, content, len(content))
    writer.write_end_of_file()


@pytest.mark.parametrize(
    "program",
    [
        # set an attribute of an allowed function: ctorch._utils\n_rebuild_tensor_v2\n, state, BUILD
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
        # set attributes of a class: ccollections\nOrderedDict\n, (None, {...}), BUILD
        b"\x80\x02ccollections\nOrderedDict\nN}X\x05\x00\x00\x00itemsK\x01s\x86b.",
        # set an attribute of a stand-in's class
        b"\x80\x02cdatetime\ndate\nN}X\x08\x00\x00\x00__init__K\x01s\x86b.",
    ],
    ids=["function", "dictionary", "stand-in"],
)
def test_a_pickle_cannot_change_functions_and_classes(program, tmp_path):
    pickletools.dis(program, io.StringIO())  # the program is well-formed
    before = dict(vars(StandIn))
    crafted(tmp_path / "net.pth", program)
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        load_with_stand_ins(tmp_path / "net.pth")
    assert dict(vars(StandIn)) == dict(before)
    assert not hasattr(torch._utils._rebuild_tensor_v2, "a")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "net.pth")
