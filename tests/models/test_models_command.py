"""`mobiledeploy models`."""

import json

import pytest

from mobiledeploy.cli import main
from mobiledeploy.cli.output import console
from mobiledeploy.models.spec import FAMILIES


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    console.cache_clear()

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["models", *arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


def test_a_table_is_printed(run):
    code, out, _ = run("v3-small")
    assert code == 0
    assert "2,542,856" in out
    assert "56.51" in out
    assert "slim head1280" in out


def test_a_narrow_window_cuts_no_figure(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console.cache_clear()  # it has read the width of the window
    _, out, _ = run()
    assert "2,542,856" in out
    assert "…" not in out
    assert {line.split()[0] for line in out.splitlines()} >= set(FAMILIES)
    assert max(map(len, out.splitlines())) <= 80


def test_width_and_resolution_apply_to_every_family(run):
    code, out, _ = run("--width", "0.25", "--resolution", "64", "--json")
    assert code == 0
    specs = [entry["spec"] for entry in json.loads(out)]
    assert {spec["family"] for spec in specs} == set(FAMILIES)
    assert {(spec["width"], spec["resolution"]) for spec in specs} == {(0.25, 64)}
    names = [entry["name"] for entry in json.loads(out)]
    assert len(set(names)) == len(names)


def test_the_layers_sum_to_the_whole(run):
    code, out, _ = run("v3", "--summary", "--json")
    assert code == 0
    (document,) = json.loads(out)
    layers = document["layers"]
    assert document["params"] == sum(layer["params"] for layer in layers) == 5_483_032
    assert document["macs"] == sum(layer["macs"] for layer in layers)
    assert sum(layer["macs_share"] for layer in layers) == pytest.approx(1)
    assert layers[0]["output_shape"] == [16, 112, 112]


def test_a_summary_lists_layers_and_the_total(run):
    code, out, _ = run("v1", "--width", "0.25", "--summary")
    assert code == 0
    assert "features.13.1.0" in out
    assert "470,072" in out


def test_a_custom_network_comes_from_a_file_and_flags_override_it(run, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("family: v2\nwidth: 0.5\narchitecture: {rows: [[1, 16, 1, 1]]}\n")
    code, out, _ = run("--config", str(path), "--resolution", "96", "--json")
    (document,) = json.loads(out)
    assert code == 0
    assert (document["spec"]["width"], document["spec"]["resolution"]) == (0.5, 96)


def test_a_name_beside_a_file_has_to_be_its_family(run, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("family: v2\nwidth: 0.5\n")
    code, _, err = run("v1", "--config", str(path))
    assert code == 2
    assert "describes a v2; requested was v1" in " ".join(err.split())
    assert run("v2", "--config", str(path))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["v9"], "There is no model 'v9'"),
        (["--width", "0"], "width is 0.0"),
        (["--resolution", "16"], "resolution is 16"),
        (["--summary"], "no model was named"),
    ],
)
def test_invalid_arguments_end_with_exit_code_2(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
