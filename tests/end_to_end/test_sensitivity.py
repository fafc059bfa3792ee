"""`mobiledeploy sensitivity` and the layers that stay in float because of it."""

import json
from xml.etree import ElementTree

import pytest
from tiny import NETWORK

pytestmark = pytest.mark.ci  # each test starts several commands


def test_sensitivity_ranks_every_layer_and_writes_document_and_chart(mobiledeploy, tmp_path):
    done = mobiledeploy(
        "sensitivity", "v2", *NETWORK, "--samples", 3, "--json", "-", "--plot", "s.svg",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    layers = document["layers"]
    assert document["images"] == {"source": "embedded", "count": 3}
    assert len({layer["name"] for layer in layers}) == len(layers) == 14
    alone = [layer["only_sqnr_db"] for layer in layers]
    assert alone == sorted(alone)
    for layer in layers:
        assert layer["gain_db"] == layer["kept_sqnr_db"] - document["int8_sqnr_db"]
    assert layers[0]["name"] in done.stderr
    assert f"{document['int8_sqnr_db']:.2f} dB with every layer in int8" in done.stderr
    plot = ElementTree.parse(tmp_path / "s.svg").getroot()
    texts = {element.text for element in plot.iter("{http://www.w3.org/2000/svg}text")}
    assert {layer["name"] for layer in layers} <= texts


def test_sensitivity_refuses_options_that_make_no_sense(mobiledeploy, tmp_path):
    done = mobiledeploy("sensitivity", "v4", cwd=tmp_path)
    assert done.returncode == 2
    assert "There is no model 'v4'" in done.stderr
    done = mobiledeploy("sensitivity", "v2", *NETWORK, "--data", "none", cwd=tmp_path)
    assert done.returncode == 3
    done = mobiledeploy("sensitivity", "v2", *NETWORK, "--samples", 9999, cwd=tmp_path)
    assert done.returncode == 3
    assert "--samples is 9999; there are" in done.stderr
    assert not list(tmp_path.iterdir())


def test_sensitivity_refuses_unwritable_files_before_the_work(mobiledeploy, tmp_path):
    for option in ("--json", "--plot"):
        done = mobiledeploy("sensitivity", "v2", *NETWORK, option, "/proc/nope/x", cwd=tmp_path)
        assert done.returncode == 4
        assert "Could not write /proc/nope: No such file" in done.stderr
        assert "PyTorch" not in done.stderr


def test_a_network_with_float_layers_can_be_rebuilt(mobiledeploy, tmp_path):
    done = mobiledeploy(
        "export", "v2", "--int8", *NETWORK, "--format", "onnx", "--keep-float",
        "classifier.1,features.0.0", "--calib-samples", 8, "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [artifact] = json.loads(done.stdout)["artifacts"]
    assert artifact["coverage"]["macs_share"] < 1
    manifest = json.loads((tmp_path / artifact["manifest"]).read_text())
    assert manifest["recipe"]["float_layers"] == ["features.0.0", "classifier.1"]
    done = mobiledeploy("parity", artifact["path"], "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_sqnr_out_of_reach_exits_with_1_and_writes_nothing(mobiledeploy, tmp_path):
    done = mobiledeploy(
        "export",
        "v2",
        "--int8",
        *NETWORK,
        "--ptq",
        "fast",
        "--calib-samples",
        8,
        "--min-sqnr",
        200,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "Even with 13 layers in float the logits reach" in done.stderr
    assert list((tmp_path / "exports").iterdir()) == []


def test_options_that_contradict_one_another_are_refused(mobiledeploy, tmp_path):
    done = mobiledeploy("export", "v2", "--keep-float", 2, cwd=tmp_path)
    assert done.returncode == 2
    assert "--keep-float needs --int8" in done.stderr
    done = mobiledeploy("export", "v2", "--int8", "--keep-float", 2, "--min-sqnr", 20, cwd=tmp_path)
    assert done.returncode == 2
