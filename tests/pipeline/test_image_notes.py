"""Notes on images reach the user once, in every command that loads them."""

import json

import pytest
from PIL import Image

from mobiledeploy.cli import main
from mobiledeploy.cli.output import reserve_stdout
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.utils.progress import reporting_to


class Recorder:
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)

    def track(self, items, *_):
        return iter(items)


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        Image.new("RGB", (40, 40), (i * 80, 10, 200)).save(tmp_path / f"{i}.png")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x20ftypheic" + bytes(40))
    (tmp_path / "labels.csv").write_text("file,class_index\n0.png,99\n")
    return tmp_path


def test_loading_images_reports_their_notes(folder):
    model = build("v2", weights="random", width=0.25, resolution=32, num_classes=4)
    recorder = Recorder()
    with reporting_to(recorder):
        images = load_images(model, folder, for_calibration=True)
    assert tuple(recorder.warnings) == images.notes
    assert len(images.notes) == 2


@pytest.mark.ci
def test_export_prints_and_records_the_notes(folder, tmp_path, capsys):
    arguments = ["export", "v2", "--int8", "--weights", "random", "--width", "0.25"]
    arguments += ["--resolution", "32", "--num-classes", "4", "--ptq", "fast", "--format", "onnx"]
    arguments += ["--no-parity", "--calib-data", str(folder), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json"])
    reserve_stdout()  # as the next command does when it starts
    said = capsys.readouterr()
    assert end.value.code == 0
    text = " ".join(said.err.split())
    assert text.count("1 file was left aside") == 1
    assert text.count("Calibration goes on without labels") == 1
    warnings = json.loads(said.out)["warnings"]
    assert any("left aside" in warning for warning in warnings)
    assert any("without labels" in warning for warning in warnings)
