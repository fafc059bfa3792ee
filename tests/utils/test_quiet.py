"""Warnings of other libraries reach nobody: neither on import nor when the API is used."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from mobiledeploy.utils import quiet
from mobiledeploy.utils.quiet import quietly


def warn_and_log():
    warnings.warn("of their internals", DeprecationWarning, stacklevel=1)
    logging.getLogger("torch").error("of their internals")


def test_warnings_and_records_are_muted_inside(recwarn, caplog):
    with quietly():
        warn_and_log()
    assert not recwarn.list
    assert not caplog.records


def test_warnings_and_records_pass_outside(caplog):
    with quietly():
        pass
    with pytest.warns(DeprecationWarning, match="internals"):
        warn_and_log()
    assert [record.message for record in caplog.records] == ["of their internals"]


def test_logging_is_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), quietly():
        _ = 1 / 0
    assert logging.root.manager.disable == logging.NOTSET


def test_verbose_mutes_nothing(monkeypatch, caplog):
    monkeypatch.setattr(quiet, "_verbose", True)
    with pytest.warns(DeprecationWarning, match="internals"), quietly():
        warn_and_log()
    assert caplog.records


@pytest.mark.ci
def test_the_api_writes_nothing_to_stderr(tmp_path):
    code = """
from pathlib import Path

import mobiledeploy

model = mobiledeploy.build("v1", weights="random", width=0.25, resolution=32, num_classes=10)
images = mobiledeploy.load_images(model, None, 4)
folded = mobiledeploy.equalize(mobiledeploy.fold(model), images)
recipe = mobiledeploy.QuantRecipe(equalization="cross-layer", rounding="nearest")
quantized = mobiledeploy.quantize(folded, images, recipe)
artifacts = [
    mobiledeploy.export_onnx(quantized, Path("a.onnx")),
    mobiledeploy.export_executorch(quantized, Path("a.pte")),
]
mobiledeploy.measure([artifact.path for artifact in artifacts], runs=2, warmup=0)
mobiledeploy.deploy(model, formats=["onnx"], calibration=None, out=Path("exports"))
assert mobiledeploy.check_parity, mobiledeploy.learn_equalization
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
