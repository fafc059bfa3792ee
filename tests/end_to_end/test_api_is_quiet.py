"""The Python API prints nothing of its own accord, and no warning of another library."""

import subprocess
import sys

import pytest
from tiny import CONFIG

CODE = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("always")  # what Python hides by default counts, too
import mobiledeploy as md

model = md.build("v2", config=Path(sys.argv[1]))
images = md.load_images(model, Path("pictures"), for_calibration=True)
folded = md.fold(model)
equal = md.equalize(folded, images)
recipe = md.QuantRecipe(equalization="cross-layer", range_rule="minmax", rounding="nearest")
quantized = md.quantize(equal, images, recipe)
Path("api").mkdir()
md.export_onnx(quantized, Path("api/a.onnx"))
md.export_executorch(quantized, Path("api/a.pte"))
md.export_tflite(quantized, Path("api/a.tflite"))
made = md.deploy(
    model, calibration=images, recipe=recipe, out=Path("api/deployed"), formats=("onnx", "pte")
)
made.require_passed()
paths = [artifact.path for artifact in made.artifacts]
assert md.check_parity(paths).passed
assert len(md.measure(paths, runs=2, warmup=1)) == 2
"""


def run(code, cwd, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.ci
def test_importing_every_public_name_prints_nothing(tmp_path):
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "import mobiledeploy\n"
        "for name in mobiledeploy.__all__: getattr(mobiledeploy, name)"
    )
    done = run(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.ci
def test_using_the_api_prints_nothing(workplace):
    done = run(CODE, workplace, CONFIG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
