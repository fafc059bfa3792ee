"""`create`: reproducible, in eval mode, and strict about invalid specifications."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.models.blocks import SamePaddingConv2d
from mobiledeploy.models.build import create
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import FAMILIES, ArchitectureOptions, ModelSpec
from mobiledeploy.models.validate import validate

TINY = {"width": 0.25, "resolution": 32}


@pytest.mark.ci
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(family):
    spec = ModelSpec(family=family, **TINY)
    first, again = create(spec), create(spec)
    other = create(replace(spec, seed=1))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    stem = next(iter(first.state_dict()))
    assert not torch.equal(first.state_dict()[stem], other.state_dict()[stem])


@pytest.mark.parametrize("family", FAMILIES)
def test_creating_leaves_the_global_random_state_alone(family):
    before = torch.random.get_rng_state()
    module = create(ModelSpec(family=family, **TINY))
    randomize_batch_norm(module, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_module_is_in_eval_mode_and_finite(family):
    module = create(ModelSpec(family=family, **TINY))
    assert not any(m.training for m in module.modules())
    assert all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("in_channels", [1, 4])
def test_any_number_of_channels_and_classes_fits(family, in_channels):
    module = create(ModelSpec(family=family, in_channels=in_channels, num_classes=7, **TINY))
    assert module(torch.zeros(2, in_channels, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("family", "features"), [("v1", 256), ("v2", 1280), ("v3-large", 320), ("v3-small", 256)]
)
def test_without_classes_the_network_ends_at_the_classifiers_input(family, features):
    classifier = create(ModelSpec(family=family, **TINY))
    extractor = create(ModelSpec(family=family, num_classes=0, **TINY))
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    extractor.load_state_dict(
        {key: classifier.state_dict()[key] for key in extractor.state_dict()}, strict=True
    )
    last = [m for m in classifier.modules() if isinstance(m, nn.Linear)][-1]
    assert extractor(x).shape == (2, features)
    torch.testing.assert_close(last(extractor(x)), classifier(x))


@pytest.mark.parametrize("size", [32, 33])
def test_same_padding_adds_the_odd_pixel_at_the_end(size):
    conv = SamePaddingConv2d(1, 1, 3, stride=2, padding=1, bias=False)
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 0, 0] = 1  # reads the top left pixel of its window
    x = torch.arange(1.0, size * size + 1).reshape(1, 1, size, size)
    y = conv(x)
    assert y.shape[2:] == (-(-size // 2),) * 2
    # An even side pads the end only, so the first window begins at the first pixel; an odd one
    # pads both ends by one, so it begins in the padding.
    assert y[0, 0, 0, 0] == (1 if size % 2 == 0 else 0)


def test_same_padding_accounts_for_dilation():
    conv = SamePaddingConv2d(1, 1, 3, dilation=2)
    assert conv(torch.zeros(1, 1, 9, 9)).shape == (1, 1, 9, 9)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 10.0},
        {"resolution": 32},
        {"num_classes": 0},
        {"in_channels": 1},
        {"seed": 2**63 - 1},
        {"dropout": 0},
        {"architecture": ArchitectureOptions(rows=((7, 16, 16, False, "RE", 1),))},
    ],
)
def test_limits_are_inclusive(change):
    validate(replace(ModelSpec(family="v3-small"), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "v4"}, "no family 'v4'"),
        ({"width": 0}, "width is 0"),
        ({"width": -0.5}, "width is -0.5"),
        ({"width": float("nan")}, "width is nan"),
        ({"width": float("inf")}, "width is inf"),
        ({"width": 100.0}, "width is 100.0"),
        ({"width": "1"}, "width is '1'"),
        ({"resolution": 31}, "resolution is 31; .* at least 32"),
        ({"resolution": 64.0}, "resolution is 64.0"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_classes": True}, "num_classes is True"),
        ({"num_classes": 10**23}, "num_classes is 10{23}; .* at most 1000000"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"in_channels": 999_999_999}, "in_channels is 999999999; .* at most 4096"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_an_invalid_specification_is_refused_with_the_field(change, message):
    with pytest.raises(UsageError, match=message):
        create(replace(ModelSpec(family="v2", **TINY), **change))


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("v1", {"dilated": True}, "v1 has no architecture option dilated"),
        ("v1", {"head_width": 64}, "v1 has no architecture option head_width"),
        ("v2", {"activation": "relu"}, "v2 has no architecture option activation"),
        ("v3-small", {"round_nearest": 4}, "v3-small has no architecture option round_nearest"),
        ("v1", {"activation": "gelu"}, "activation is 'gelu'; .* relu, relu6"),
        ("v1", {"kernels_per_layer": 0}, "kernels_per_layer is 0"),
        ("v2", {"round_nearest": 0}, "round_nearest is 0"),
        ("v2", {"head_width": 0}, "head_width is 0"),
        ("v2", {"hidden_width": 100}, "v2 has no architecture option hidden_width"),
        ("v3-small", {"hidden_width": 0}, "hidden_width is 0"),
        ("v2", {"stem_stride": 4}, "stem_stride is 4; .* at least 1 and at most 2"),
        ("v2", {"stem_stride": True}, "stem_stride is True"),
        ("v3-large", {"width_rule": "wide"}, "width_rule is 'wide'"),
        ("v3-large", {"se_gate": "relu"}, "se_gate is 'relu'"),
        ("v3-large", {"dilated": 1}, "dilated is 1; .* true or false"),
        ("v2", {"norm_eps": 0.0}, "norm_eps is 0.0"),
        ("v2", {"norm_eps": float("inf")}, "norm_eps is inf"),
        ("v2", {"padding": "valid"}, "padding is 'valid'"),
        ("v2", {"rows": ()}, "rows is .*; expected a list of rows"),
        ("v2", {"rows": "t"}, "rows is 't'"),
        ("v2", {"rows": ((1, 16, 1),)}, "row 1 is .* 4 columns: t, c, n, s"),
        ("v2", {"rows": (5,)}, "row 1 is 5"),
        ("v2", {"rows": ((1, 16, 1, 3),)}, "row 1, column s is 3; expected 1 or 2"),
        ("v2", {"rows": ((1, 16, 1, 1), (0, 16, 1, 1))}, "row 2, column t is 0"),
        ("v2", {"rows": ((1, 16, 10**9, 1),)}, "column n is 1000000000; .* at most 1000"),
        ("v2", {"rows": ((1, 16, 600, 1), (1, 16, 600, 1))}, "rows describe 1200 blocks"),
        ("v2", {"rows": ((1, 10**9, 1, 1),)}, "column c is 1000000000; .* at most 65536"),
        ("v1", {"rows": ((64, 1),) * 1001}, "rows describe 1001 blocks; expected at most 1000"),
        ("v1", {"kernels_per_layer": 10**9}, "kernels_per_layer is 1000000000"),
        ("v2", {"head_width": 10**9}, "head_width is 1000000000; .* at most 65536"),
        ("v1", {"rows": ((64, "2"),)}, "row 1, column s is '2'"),
        ("v1", {"rows": ((64, True),)}, "row 1, column s is True"),
        ("v3-small", {"rows": ((4, 16, 16, True, "RE", 1),)}, "column k is 4"),
        ("v3-small", {"rows": ((1, 16, 16, True, "RE", 1),)}, "column k is 1"),
        ("v3-small", {"rows": ((3, 16, 16, 1, "RE", 1),)}, "column SE is 1"),
        ("v3-small", {"rows": ((3, 16, 16, True, "relu", 1),)}, "column NL is 'relu'"),
    ],
)
def test_an_invalid_architecture_is_refused_with_the_option(family, options, message):
    spec = ModelSpec(family=family, architecture=ArchitectureOptions(**options), **TINY)
    with pytest.raises(UsageError, match=message):
        create(spec)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stem_of_stride_1_keeps_the_resolution(family):
    options = ArchitectureOptions(stem_stride=1)
    module = create(ModelSpec(family=family, architecture=options, **TINY))
    side = TINY["resolution"]
    stem = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    assert stem(torch.zeros(1, 3, side, side)).shape[2:] == (side, side)


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_the_hidden_width_is_not_scaled(width):
    options = ArchitectureOptions(hidden_width=100)
    spec = ModelSpec(family="v3-small", width=width, num_classes=7, architecture=options)
    assert create(spec).classifier[3].weight.shape == (7, 100)


def test_the_name_contains_every_difference_from_the_published_network():
    plain = ModelSpec(family="v3-small")
    changes = [
        {"family": "v3-large"},
        {"width": 0.75},
        {"resolution": 96},
        {"num_classes": 10},
        {"num_classes": 0},
        {"in_channels": 1},
        {"weights": "random"},
        {"weights": "random", "seed": 3},
        *(
            {"architecture": ArchitectureOptions(**options)}
            for options in (
                {"rows": ((3, 16, 16, True, "RE", 1),)},
                {"rows": ((3, 16, 24, True, "RE", 1),)},
                {"width_rule": "slim"},
                {"head_width": 1280},
                {"stem_width": 32},
                {"stem_stride": 1},
                {"hidden_width": 100},
                {"dilated": True},
                {"reduced_tail": True},
                {"se_gate": "sigmoid"},
                {"norm_eps": 1e-5},
                {"padding": "same"},
                {"activation": "relu"},
                {"kernels_per_layer": 2},
                {"round_nearest": 4},
            )
        ),
    ]
    names = [plain.name, *(replace(plain, **change).name for change in changes)]
    assert names[0] == "mobilenet_v3_small_1.0_224"
    assert len(set(names)) == len(names)
    assert all(name == name.strip() and "/" not in name and " " not in name for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_height_and_width_may_differ(family):
    spec = ModelSpec(family=family, width=0.25, resolution=(64, 32), num_classes=3)
    assert spec.input_shape == (1, 3, 64, 32)
    assert "_64x32-" in spec.name
    assert create(spec)(torch.zeros(spec.input_shape)).shape == (1, 3)
    assert ModelSpec.from_document({"family": family, "resolution": [64, 32]}).resolution == (
        64,
        32,
    )
    assert ModelSpec.from_document({"family": family, "resolution": [64, 64]}).resolution == 64


@pytest.mark.parametrize("resolution", [(64,), (64, 16), (64, 32, 3), ("64", 32), True])
def test_an_impossible_size_is_refused(resolution):
    with pytest.raises(UsageError, match="resolution is"):
        validate(ModelSpec(family="v2", resolution=resolution))
