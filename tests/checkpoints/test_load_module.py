"""Checkpoints of networks from the user's own code."""

import pytest
import torch
from torch import nn

from mobiledeploy.checkpoints.load_module import digest_of_state, load_state
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.initialize import randomize_batch_norm


def network(classes=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def trained():
    module = network()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1, generator=torch.Generator().manual_seed(3))
    return module.state_dict()


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda state: state, "9 tensors"),
        (lambda state: {f"module.{k}": v for k, v in state.items()}, "prefix 'module.'"),
        (lambda state: {"model": state, "epoch": 3}, "taken from 'model'"),
        (
            lambda state: {k: v for k, v in state.items() if "num_batches" not in k},
            "8 tensors",
        ),
    ],
)
def test_a_checkpoint_is_loaded_by_name(wrap, note, tmp_path):
    path, module = tmp_path / "best.pth", network()
    torch.save(wrap(trained()), path)
    provenance = load_state(module, str(path))
    for name, tensor in trained().items():
        if "num_batches" not in name:
            assert torch.equal(module.state_dict()[name], tensor), name
    assert any(note in each for each in provenance.notes)
    assert provenance.source == "file"


def test_names_of_a_network_within_the_module_are_kept(tmp_path):
    """A MobileNet inside the module is no reason to strip the name of its place."""
    module = nn.ModuleDict({"features": nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)))})
    whole = nn.ModuleDict({"backbone": module, "head": nn.Linear(4, 2)})
    torch.save(whole.state_dict(), tmp_path / "best.pth")
    assert load_state(whole, str(tmp_path / "best.pth")).source == "file"


def test_other_shapes_and_names_are_refused_by_name(tmp_path):
    path = tmp_path / "best.pth"
    torch.save(trained(), path)
    with pytest.raises(WeightsError, match=r"3\.weight is \(3, 4\), expected \(5, 4\)"):
        load_state(network(classes=5), str(path))
    with pytest.raises(WeightsError, match="left over"):
        load_state(nn.Sequential(nn.Conv2d(3, 4, 3)), str(path))


def test_values_that_are_not_finite_are_refused(tmp_path):
    state = trained()
    state["0.weight"][0] = float("nan")
    torch.save(state, tmp_path / "best.pth")
    with pytest.raises(WeightsError, match=r"0\.weight has values that are NaN"):
        load_state(network(), str(tmp_path / "best.pth"))


def test_the_digest_depends_on_every_value():
    module = network()
    randomize_batch_norm(module.eval()[:2], seed=0)
    before = digest_of_state(module)
    module[3].bias.data[0] += 1
    assert digest_of_state(module) != before
