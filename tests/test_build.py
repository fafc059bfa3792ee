"""`build`: a name, a file and weights, each saying what it knows, none contradicting another."""

import json

import pytest
import torch

from mobiledeploy import models, pipeline
from mobiledeploy.cli import main
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.types import ArchitectureOptions, ModelSpec

ROWS = ((1, 16, 1, 2), (6, 24, 2, 2))
OPTIONS = ArchitectureOptions(rows=ROWS)
CONFIG = "family: v2\nresolution: 32\narchitecture: {rows: [[1, 16, 1, 2], [6, 24, 2, 2]]}\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """Weights of the network in `config`, at another width and with seven classes."""
    spec = ModelSpec(family="v2", width=0.5, num_classes=7, architecture=OPTIONS)
    path = tmp_path / "mine.pth"
    torch.save(models.create(spec).state_dict(), path)
    return path


def test_a_file_names_the_network_and_flags_override_it(config):
    built = pipeline.build(config=config, weights="random", resolution=64, num_classes=5)
    assert built.spec == ModelSpec(
        family="v2", resolution=64, num_classes=5, weights="random", architecture=OPTIONS
    )


def test_a_checkpoint_decides_what_the_file_leaves_out(config, checkpoint):
    built = pipeline.build(config=config, weights=str(checkpoint))
    assert (built.spec.width, built.spec.num_classes, built.spec.resolution) == (0.5, 7, 32)
    assert built.spec.architecture == OPTIONS


def test_what_the_file_states_must_not_contradict_the_checkpoint(config, checkpoint):
    config.write_text(CONFIG + "num_classes: 1000\n")  # the default, but stated
    with pytest.raises(WeightsError, match="num_classes 7; asked for was num_classes 1000"):
        pipeline.build(config=config, weights=str(checkpoint))


def test_weights_and_seed_may_stand_in_the_file(config):
    config.write_text(CONFIG + "weights: random\nseed: 3\n")
    built = pipeline.build(config=config)
    assert built.provenance.origin == "seed 3"
    assert pipeline.build(config=config, seed=4).provenance.origin == "seed 4"


def test_a_name_beside_the_file_has_to_be_its_family(config):
    assert pipeline.build("v2", config=config, weights="random").spec.family == "v2"
    with pytest.raises(UsageError, match=r"mine\.yaml describes a v2; asked for was v1"):
        pipeline.build("v1", config=config, weights="random")


def test_a_model_has_to_be_named():
    with pytest.raises(UsageError, match="No model was named"):
        pipeline.build(weights="random")


def test_the_command_exports_what_a_file_describes(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(
            [
                *("export", "--config", str(config), "--weights", "random", "--num-classes", "5"),
                *("--format", "onnx", "--no-parity", "--out", str(tmp_path / "out"), "--json"),
            ]
        )
    assert end.value.code == 0
    (artifact,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert artifact["spec"]["architecture"]["rows"] == [list(row) for row in ROWS]
    assert (artifact["spec"]["num_classes"], artifact["spec"]["resolution"]) == (5, 32)
