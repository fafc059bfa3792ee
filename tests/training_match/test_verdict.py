"""A network whose assumptions differ from training is found out by its BatchNorm statistics."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.errors import GateError
from mobiledeploy.models.blocks import SamePaddingConv2d
from mobiledeploy.models.build import create
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.network import Preprocessing, WeightsProvenance
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.check_training_match import check_training_match
from mobiledeploy.stages import CalibrationSet, FloatModel
from mobiledeploy.training_match.alternatives import BuiltNetwork, alternatives
from mobiledeploy.training_match.distance import batch_norm_distance, has_statistics
from mobiledeploy.training_match.verdict import Cause, TrainingMatch, compare_with_training

pytestmark = pytest.mark.ci

SIDE, COUNT = 64, 48
TRAINED = WeightsProvenance(source="file", origin="own.pth", sha256="abc")


def photographs(seed, count=COUNT, side=SIDE):
    """Return noise with the spectrum of photographs, normalised as ImageNet's, (N, 3, H, W)."""
    random = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    spectrum = random.standard_normal((2, count, 3, *frequencies.shape))
    shaped = (spectrum[0] + 1j * spectrum[1]) / np.maximum(frequencies, 1 / side)
    values = np.fft.irfft2(shaped, (side, side))
    values = values / values.std((2, 3), keepdims=True) * 0.25 + 0.45
    pixels = np.clip(values, 0, 1)
    mean, std = (np.array(v)[:, None, None] for v in (Preprocessing().mean, Preprocessing().std))
    return ((pixels - mean) / std).astype(np.float32)


def as_calibration(images):
    return CalibrationSet(images=images, source="photos", sha256="c0ffee")


@pytest.fixture(scope="module", params=["v1", "v2", "v3-small"])
def trained(request):
    """Return a network whose BatchNorms remember what photographs look like."""
    spec = ModelSpec(family=request.param, width=0.5, resolution=SIDE, num_classes=10)
    module = create(spec)
    randomize_batch_norm(module, seed=1)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    images = torch.from_numpy(photographs(seed=0, count=96))
    for norm in norms:  # layer by layer, each behind those that are settled
        norm.train()
        norm.momentum = 1.0
        with torch.no_grad():
            module(images)
        norm.eval()
    return FloatModel(info=spec.network_info(TRAINED, Preprocessing()), module=module)


@pytest.fixture(scope="module")
def images():
    return photographs(seed=9)


def changed(model, change):
    """Return the network with every layer changed by a function, on a copy."""
    other = create(ModelSpec.from_document(model.info.source))
    other.load_state_dict(model.module.state_dict())
    for layer in other.modules():
        change(layer)
    return replace(model, module=other)


def built(model, published=None):
    return BuiltNetwork(
        module=model.module,
        preprocessing=model.info.preprocessing,
        resolution=model.info.input.height,
        published=published,
    )


def set_eps(layer):
    if isinstance(layer, nn.BatchNorm2d):
        layer.eps = 1e-1


def set_padding(layer):
    if type(layer) is nn.Conv2d and layer.kernel_size[0] > 1:
        layer.__class__ = SamePaddingConv2d


def test_a_sound_network_and_its_images_match(trained, images):
    match = compare_with_training(trained, as_calibration(images))
    assert not match.is_mismatch
    assert match.causes == ()
    assert match.images in (16, COUNT)


@pytest.mark.parametrize(
    ("mean", "std", "named"),
    [
        ((0.0,) * 3, (1.0,) * 3, "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
        ((0.0,) * 3, (1 / 255,) * 3, "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"),
    ],
)
def test_another_normalisation_is_named_with_what_to_try(trained, images, mean, std, named):
    usual = Preprocessing()
    pixels = images * np.array(usual.std)[:, None, None] + np.array(usual.mean)[:, None, None]
    wrong = replace(usual, mean=mean, std=std)
    given = ((pixels - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]).astype("f4")
    info = replace(trained.info, input=replace(trained.info.input, preprocessing=wrong))
    match = compare_with_training(replace(trained, info=info), as_calibration(given))
    assert match.is_mismatch
    assert named in match.causes[0].remedy
    assert "Probably the normalisation differs from training" in match.explanation()
    assert "--allow-mismatch" in match.remedy()


def test_an_epsilon_that_no_alternative_has_is_a_mismatch_or_close(trained, images):
    """1e-1 is wrong: what fits better is one of the usual ones."""
    match = compare_with_training(changed(trained, set_eps), as_calibration(images))
    own = compare_with_training(trained, as_calibration(images))
    assert match.distance > 1.5 * own.distance


def test_every_alternative_shares_the_weights_and_leaves_the_network_alone(trained, images):
    before = batch_norm_distance(trained.module, images).mean
    for other in alternatives(built(trained)):
        theirs = dict(other.module.named_parameters())
        for name, parameter in trained.module.named_parameters():
            assert theirs[name] is parameter
        batch_norm_distance(other.module, other.inputs(images[:2]))
    assert batch_norm_distance(trained.module, images).mean == before


def test_padding_as_tensorflow_has_it_is_undone_by_an_alternative(trained, images):
    wrong = changed(trained, set_padding)
    others = alternatives(built(wrong))
    padded = next(other for other in others if other.cause == "the padding")
    assert "symmetric" in padded.remedy
    assert (
        batch_norm_distance(padded.module, images).mean
        == batch_norm_distance(trained.module, images).mean
    )


def test_the_papers_strides_and_activations_are_tried(trained, images):
    def flatten_strides(layer):
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)

    wrong = changed(trained, flatten_strides)
    others = list(alternatives(built(wrong, published=lambda: trained.module)))
    original = next(other for other in others if other.description == "the paper's strides")
    assert (
        batch_norm_distance(original.module, images).mean
        == batch_norm_distance(trained.module, images).mean
    )


def test_the_papers_strides_are_not_tried_on_another_row_table(trained):
    other = create(ModelSpec(family="v2", width=0.25, resolution=SIDE, num_classes=10))
    found = alternatives(built(trained, published=lambda: other))
    assert "the paper's strides" not in [alternative.description for alternative in found]


def test_few_images_suffice_where_they_match(trained, images, monkeypatch):
    for limit, expected in ((9.0, 16), (0.0, COUNT)):
        monkeypatch.setattr("mobiledeploy.training_match.verdict._LIKE_TRAINING", limit)
        assert compare_with_training(trained, as_calibration(images)).images == expected


def test_each_alternative_is_made_once(trained, images, monkeypatch):
    """Making one takes a copy of the network, and its confirmation needs no other."""
    made = []

    def counted(network):
        for other in alternatives(network):
            made.append(other.description)
            yield other

    monkeypatch.setattr("mobiledeploy.training_match.verdict.alternatives", counted)
    wrong = images / np.float32(255)
    assert compare_with_training(trained, as_calibration(wrong)).distance > 1
    assert len(made) == len(set(made)) > 10


def match(distance, *causes, first=0.4):
    found = [Cause(name, "", "pass --that", 0.1) for name in causes]
    return TrainingMatch(
        distance=distance,
        first_layer=first,
        last_layer=distance,
        images=32,
        source="photos",
        causes=tuple(found),
    )


@pytest.mark.parametrize(
    ("found", "mismatch", "doubtful"),
    [
        (match(0.4), False, False),  # odd images
        (match(0.7), False, True),
        (match(0.3, first=0.7), False, True),
        (match(1.1), True, False),
        (match(0.4, "the padding"), True, False),
        (match(0.4, "the resolution"), False, True),  # a choice
        (match(0.4, "the resolution", "the strides"), True, False),
        (match(0.7, "the resolution"), True, False),
    ],
)
def test_what_is_refused_and_what_is_only_said(found, mismatch, doubtful):
    assert (found.is_mismatch, found.is_doubtful) == (mismatch, doubtful)


def test_what_is_no_mismatch_is_a_warning(trained, images, monkeypatch):
    warned = []
    monkeypatch.setattr("mobiledeploy.pipeline.check_training_match.warn", warned.append)
    monkeypatch.setattr(
        "mobiledeploy.pipeline.check_training_match.compare_with_training",
        lambda *_, **__: match(0.4, "the resolution"),
    )
    assert check_training_match(trained, as_calibration(images)) is not None
    assert "Probably the resolution differs" in warned[0]
    assert warned[0].endswith("Pass --that.")


@pytest.mark.ci
@pytest.mark.shared
@pytest.mark.parametrize("resolution", [96, 112, 128])
def test_published_weights_at_another_resolution_are_not_refused(shared, resolution):
    model = build("v2", resolution=resolution)
    images = load_images(model, shared / "data/imagenet-sample/calib", 32)
    assert check_training_match(model, images).causes[0].name == "the resolution"


def test_nothing_is_judged_without_training_or_with_few_images(trained, images):
    random = WeightsProvenance(source="random", origin="seed 0")
    untrained = replace(trained, info=replace(trained.info, provenance=random))
    assert compare_with_training(untrained, as_calibration(images)) is None
    assert compare_with_training(trained, as_calibration(images[:7])) is None
    folded = networks.folded("v1", short=True).module
    assert not has_statistics(folded)


def test_copies_of_one_image_are_refused(trained, images):
    copies = as_calibration(np.repeat(images[:1], 40, axis=0))
    with pytest.raises(GateError, match="All 40 images from photos are copies of one image"):
        check_training_match(trained, copies)
    random = WeightsProvenance(source="random", origin="seed 0")
    untrained = replace(trained, info=replace(trained.info, provenance=random))
    assert check_training_match(untrained, copies) is None


def test_dead_channels_do_not_count(trained, images):
    norm = next(layer for layer in trained.module.modules() if isinstance(layer, nn.BatchNorm2d))
    kept = norm.running_var.clone()
    before = batch_norm_distance(trained.module, images).layers
    try:
        norm.running_var[0] = 0
        after = batch_norm_distance(trained.module, images).layers
    finally:
        norm.running_var.copy_(kept)
    (name, *_) = before
    assert after[name] == pytest.approx(before[name], abs=0.2)


CHECKPOINTS = {
    "v1": "mobilenet_v1_0.5_cifar10",
    "v3-small": "mobilenet_v3_small_cifar10",
}
WRONG = {
    "the padding": {"padding": "same"},
    "BatchNorm's epsilon": {"norm_eps": 1e-2},
    "the activation": {"activation": nn.Hardswish},
    "the strides": {"stem": 1},
    "the normalisation": {"mean": (0.0,) * 3, "std": (1.0,) * 3},
}


@pytest.mark.ci
@pytest.mark.shared
@pytest.mark.parametrize("cause", WRONG)
@pytest.mark.parametrize("family", CHECKPOINTS)
def test_mistakes_with_trained_networks_are_caught_and_named(shared, family, cause):
    change = WRONG[cause]
    options = {name: change[name] for name in ("padding", "norm_eps") if name in change}
    preprocessing = {name: change[name] for name in ("mean", "std") if name in change}
    model = build(
        family,
        weights=str(shared / f"checkpoints/{CHECKPOINTS[family]}.safetensors"),
        resolution=64,
        preprocessing=preprocessing or None,
        architecture=ArchitectureOptions(**options),
    )
    if "activation" in change:
        for parent in list(model.module.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish):
                    setattr(parent, name, change["activation"]())
    if "stem" in change:
        stem = next(layer for layer in model.module.modules() if isinstance(layer, nn.Conv2d))
        stem.stride = (1, 1)
    images = load_images(model, shared / "data/cifar10/calib.npz")
    published = create(ModelSpec(family=family))
    match = compare_with_training(model, images, published=lambda: published)
    assert match.is_mismatch
    assert cause in [found.name for found in match.causes]


def normalized(pixels):
    mean, std = (np.array(v)[:, None, None] for v in (Preprocessing().mean, Preprocessing().std))
    return (pixels - mean) / std


UNLIKE = {
    "mean and std of 0.5": lambda x: (x - 0.5) / 0.5,
    "not normalised": lambda x: x,
    "not even scaled": lambda x: x * 255,
    "mean not taken off": lambda x: normalized(x) - normalized(np.zeros_like(x)),
    "normalised twice": lambda x: normalized(normalized(x)),
    "black": lambda x: normalized(0 * x),
}


@pytest.mark.shared
@pytest.mark.parametrize("family", CHECKPOINTS)
@pytest.mark.parametrize("mistake", UNLIKE)
def test_images_that_are_preprocessed_elsewhere_and_wrongly_are_reported(shared, family, mistake):
    weights = str(shared / f"checkpoints/{CHECKPOINTS[family]}.safetensors")
    model = build(family, weights=weights, resolution=64)
    images = load_images(model, shared / "data/cifar10/calib.npz", 64)
    usual = Preprocessing()
    pixels = images.images * np.array(usual.std)[:, None, None]
    pixels += np.array(usual.mean)[:, None, None]
    given = UNLIKE[mistake](pixels).astype(np.float32)
    found = compare_with_training(model, replace(images, images=given))
    assert found.is_mismatch or found.is_doubtful
    assert "preprocessing" in found.explanation() or "normalis" in found.explanation()


@pytest.mark.shared
@pytest.mark.parametrize("family", CHECKPOINTS)
def test_another_resolution_is_caught_and_named(shared, family):
    """The alternatives are tried on the image files themselves, decoded at each resolution."""
    weights = str(shared / f"checkpoints/{CHECKPOINTS[family]}.safetensors")
    model = build(family, weights=weights, resolution=32)
    images = load_images(model, shared / "data/cifar10/calib.npz")
    with pytest.raises(GateError, match="images of 64x64 pixels") as refused:
        check_training_match(model, images)
    assert "Pass --resolution 64" in refused.value.remedy
    assert check_training_match(model, images, allow_mismatch=True).is_mismatch


@pytest.mark.shared
@pytest.mark.parametrize("family", CHECKPOINTS)
@pytest.mark.parametrize("chosen", [range(60), range(20), range(0, 200, 5)])
def test_trained_networks_match_on_images_of_few_and_of_all_classes(shared, family, chosen):
    weights = str(shared / f"checkpoints/{CHECKPOINTS[family]}.safetensors")
    model = build(family, weights=weights, resolution=64)
    images = load_images(model, shared / "data/cifar10/calib.npz")
    some = replace(images, images=images.images[list(chosen)])
    assert not compare_with_training(model, some).is_mismatch
