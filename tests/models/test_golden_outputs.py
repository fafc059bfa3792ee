"""Compare with the golden outputs of torchvision and timm (see make_golden.py)."""

import json
from pathlib import Path

import pytest
import torch
from golden_state import golden_images, golden_state

from mobiledeploy.models.build import create
from mobiledeploy.models.spec import ModelSpec

FILES = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_there_is_a_golden_file_for_every_reference():
    names = [path.stem for path in FILES]
    assert len(names) == 24
    for reference in ("torchvision-mobilenet_v2", "torchvision-mobilenet_v3_large"):
        assert reference in names
    for reference in (
        "timm-mobilenetv1_100",
        "timm-mobilenetv2_100",
        "timm-mobilenetv3_small_100",
        "timm-mobilenetv4_conv_small",
    ):
        assert reference in names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_outputs_are_those_of_the_reference_implementation(path):
    golden = json.loads(path.read_text())
    module = create(ModelSpec.from_document(golden["spec"])).double()
    theirs = golden_state({key: tuple(shape) for key, shape in golden["shapes"].items()}, 7)
    ours = module.state_dict()
    if path.stem.startswith(("torchvision", "timm-mobilenetv4")):
        assert list(ours) == list(theirs)
    # timm has other names for V1 to V3 (mapped in `mobiledeploy.checkpoints`) for the same tensors
    # in the same order; its V3 head is a 1x1 convolution.
    renamed = {
        key: value.reshape(ours[key].shape)
        for key, value in zip(ours, theirs.values(), strict=True)
    }
    module.load_state_dict(renamed, strict=True)
    with torch.no_grad():
        logits = module(golden_images(golden["seed"], golden["images"]))
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    assert expected.std(0).mean() > 0.01, "the reference does not look at its images"
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-9)
