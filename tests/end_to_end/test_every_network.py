"""Every family at its published sizes, and checkpoints of every dialect, in both formats.

Run by `pytest -m slow`, in about twenty minutes on two cores.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_state import golden_state

from mobiledeploy.models.published_sizes import published
from mobiledeploy.models.spec import FAMILIES
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.deploy import deploy

pytestmark = pytest.mark.slow

IMAGES = 8
SMALLEST = {
    family: min(spec.width for spec in published() if spec.family == family) for family in FAMILIES
}
GOLDEN = Path(__file__).parents[1]
CHECKPOINTS = {
    "models/golden/timm-mobilenetv1_100": "v1",
    "models/golden/timm-mobilenetv2_035": "v2",
    "models/golden/timm-mobilenetv3_small_050": "v3-small",
    "models/golden/timm-mobilenetv3_large_075": "v3-large",
    "models/golden/timm-tf_mobilenetv3_large_100": "v3-large",
    "models/golden/torchvision-mobilenet_v3_small_0.5_dilated_tail": "v3-small",
    "checkpoints/golden/transformers-mobilenet_v1_0.5": "v1",
    "checkpoints/golden/transformers-mobilenet_v2_0.35": "v2",
}


def deployed_rungs(model, precision, out):
    """Deploy to both formats; return the artifacts' rungs of the parity ladder, by name."""
    images = load_images(model, None, IMAGES)
    calibration = images if precision == "int8" else None
    done = deploy(model, formats=("onnx", "pte"), calibration=calibration, out=out)
    return {rung.name: rung for rung in done.parity.rungs if rung.artifact}


def check_exactness(rungs, classes):
    """Check that logits are equal. Random weights have no accuracy that int8 could cost."""
    pairs = (("onnx", "integers"), ("pte", "integers"), ("pte", "onnx"))
    compared = [rungs[name].against(reference).metrics for name, reference in pairs]
    assert [each["logits"] for each in compared] == 3 * [IMAGES * classes]
    assert [each["differing_logits"] for each in compared] == [0, 0, 0]


def depends_on_its_input(model):
    """Return whether the logits of any two images differ; equal constants would prove nothing."""
    images = load_images(model, None, IMAGES).images
    with torch.no_grad():
        logits = model.module(torch.from_numpy(images)).numpy()
    return len(np.unique(logits, axis=0)) == IMAGES


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("resolution", [96, 224])
@pytest.mark.parametrize(
    ("family", "width"),
    [(family, width) for family in FAMILIES for width in (SMALLEST[family], 1.0)],
)
def test_a_family_has_parity_in_both_formats(family, width, resolution, precision, tmp_path):
    model = build(family, weights="random", width=width, resolution=resolution)
    assert depends_on_its_input(model)
    rungs = deployed_rungs(model, precision, tmp_path)
    if precision == "int8":
        check_exactness(rungs, 1000)
    else:
        for name in ("onnx", "pte"):
            assert rungs[name].passed
            assert rungs[name].against("fold").metrics["sqnr_db"] > 80


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_of_every_dialect_has_parity_in_both_formats(name, tmp_path):
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    shapes = {key: tuple(shape) for key, shape in golden["shapes"].items()}
    path = tmp_path / f"{Path(name).name.split('-', 1)[1]}.pth"
    torch.save(golden_state(shapes, 7), path)
    model = build(CHECKPOINTS[name], weights=str(path), resolution=64)
    assert depends_on_its_input(model)
    check_exactness(deployed_rungs(model, "int8", tmp_path), 10)
