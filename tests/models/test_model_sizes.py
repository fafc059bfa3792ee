"""Parameters and multiply-accumulates: the published figures, exactly."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from mobiledeploy import models
from mobiledeploy.models.build import create
from mobiledeploy.models.published_sizes import published, published_totals
from mobiledeploy.models.spec import FAMILIES, ArchitectureOptions, ModelSpec
from mobiledeploy.models.summary import summarize

SIZES = Path(models.__file__).with_name("published_sizes.json")
VARIANTS = {
    "large-slim": {"width_rule": "slim"},
    "small-head1280": {"head_width": 1280},
    "small-slim-head1280": {"width_rule": "slim", "head_width": 1280},
}


# Parameters as torchvision states them for its own networks; V1's as Keras does.
@pytest.mark.parametrize(
    ("family", "params", "macs_millions"),
    [
        ("v1", 4_231_976, 568.74),
        ("v2", 3_504_872, 300.77),
        ("v3-large", 5_483_032, 216.59),
        ("v3-small", 2_542_856, 56.51),
    ],
)
def test_the_standard_networks_have_their_published_size(family, params, macs_millions):
    summary = summarize(ModelSpec(family=family))
    assert summary.params == params
    assert round(summary.macs / 1e6, 2) == macs_millions


@pytest.mark.ci
@pytest.mark.shared
def test_every_row_of_the_published_sizes_is_reproduced(shared):
    with (shared / "oracles" / "mobilenet_params_macs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 45
    for row in rows:
        family = row["family"]
        if family == "v3":
            family += "-" + row["variant"].split("-")[0]
        spec = ModelSpec(
            family=family,
            width=float(row["width"]),
            resolution=int(row["resolution"]),
            architecture=ArchitectureOptions(**VARIANTS.get(row["variant"], {})),
        )
        summary = summarize(spec)
        assert summary.params == int(row["params"]), row
        assert f"{summary.macs / 1e6:.2f}" == row["macs_millions"], row


@pytest.mark.parametrize("family", FAMILIES)
def test_the_counted_layers_hold_every_parameter(family):
    spec = ModelSpec(family=family, width=0.5, resolution=96)
    module = create(spec)
    summary = summarize(spec)
    assert summary.params == sum(parameter.numel() for parameter in module.parameters())
    assert sum(summary.macs_share(layer) for layer in summary.layers) == pytest.approx(1)
    names = dict(module.named_modules())
    assert all(layer.name in names for layer in summary.layers)


def test_macs_account_for_stride_groups_and_kernel():
    layer = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=3)
    rows = ((12, 2),)
    spec = ModelSpec(
        family="v1",
        resolution=32,
        num_classes=0,
        architecture=ArchitectureOptions(rows=rows, stem_width=6),
    )
    stem, _, depthwise, _, pointwise, _ = summarize(spec).layers
    assert stem.macs == 16 * 16 * 6 * 3 * 9  # output pixels x output channels x inputs x kernel
    assert depthwise.macs == 8 * 8 * 6 * 9
    assert pointwise.macs == 8 * 8 * 12 * 6
    assert (depthwise.kind, pointwise.kind) == ("depthwise 3x3 /2", "conv 1x1")
    assert depthwise.output_shape == (6, 8, 8)
    assert layer(torch.zeros(1, 6, 16, 16)).shape == (1, 12, 8, 8)


def test_a_dense_convolution_of_grey_images_is_not_taken_for_a_depthwise_one():
    stem, *_ = summarize(ModelSpec(family="v1", in_channels=1)).layers
    assert stem.kind == "conv 3x3 /2"


def test_sizes_count_weights_biases_and_scales_of_the_folded_network():
    rows = ((12, 2),)
    spec = ModelSpec(
        family="v1", num_classes=5, architecture=ArchitectureOptions(rows=rows, stem_width=6)
    )
    weights = 6 * 3 * 9 + 6 * 9 + 12 * 6 + 12 * 5
    channels = 6 + 6 + 12 + 5
    summary = summarize(spec)
    assert summary.fp32_bytes == 4 * (weights + channels)
    assert summary.int8_bytes == weights + 8 * channels


def test_the_published_networks_are_all_different():
    specs = published()
    assert len(specs) == 22
    assert len({spec.name for spec in specs}) == 22


@pytest.mark.ci
def test_the_listed_sizes_are_what_counting_gives(request):
    counted = [summarize(spec).totals for spec in published()]
    if request.config.getoption("--regen"):
        sizes = {
            one.spec.name: {k: v for k, v in asdict(one).items() if k != "spec"} for one in counted
        }
        SIZES.write_text(json.dumps(sizes, indent=2) + "\n")
    assert list(published_totals()) == counted, "pytest --regen writes the sizes again"
