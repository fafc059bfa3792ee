"""Tiny seeded networks at every stage of the pipeline; each is made once per process.

Their BatchNorms are randomised and their inputs are normalised 8-bit pixels, as in real networks.
"""

import functools
from dataclasses import asdict, replace

import numpy as np
import torch

from mobiledeploy.data.pixels import artifact_inputs, folded_inputs
from mobiledeploy.graph.fold_batch_norm import fold
from mobiledeploy.graph.fold_preprocessing import fold_preprocessing
from mobiledeploy.models.build import create
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.network import INPUT_FORMATS, Preprocessing, WeightsProvenance
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.stages import RECIPES, CalibrationSet, FloatModel

CLASSES = 10
# One V4 stands for the three, which have the same blocks.
FAMILIES = ("v1", "v2", "v3-large", "v3-small", "v4-conv-small")
LABELS = (*(f"class {i}" for i in range(CLASSES - 1)), "öre")

# Every operator of each family, in so few rows that lowering takes seconds instead of a minute.
SHORT_ROWS = {
    "v1": ((64, 2), (128, 2)),
    "v2": ((1, 16, 1, 2), (6, 24, 2, 2)),
    "v4-conv-small": (
        ("Conv", 3, 0, 0, 32, 2),
        ("FusedIB", 3, 0, 64, 32, 1),
        ("UIB", 3, 5, 64, 48, 2),
        ("UIB", 3, 0, 96, 48, 1),
        ("UIB", 0, 0, 96, 48, 1),
    ),
    "v3-small": (
        (3, 16, 16, True, "RE", 1),
        (3, 72, 24, False, "HS", 2),
        (5, 96, 24, True, "HS", 1),
    ),
}


def pixels(resolution, count=8, seed=0):
    """Return `count` normalised images, coarse blocks under fine noise: (count, 3, H, W).

    Of an input that is not square, they are the left part of square ones.
    """
    if isinstance(resolution, tuple):
        height, width = resolution
        return np.ascontiguousarray(pixels(max(resolution), count, seed)[..., :height, :width])
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 3, 4, 4)).repeat(resolution // 4, 2)
    coarse = coarse.repeat(resolution // 4, 3)
    noise = random.normal(size=(count, 3, resolution, resolution)) * random.uniform(
        0, 60, (count, 1, 1, 1)
    )
    values = np.clip(coarse + noise, 0, 255).round().astype(np.float32) / np.float32(255)
    preprocessing = Preprocessing()
    mean = np.array(preprocessing.mean, np.float32)[:, None, None]
    std = np.array(preprocessing.std, np.float32)[:, None, None]
    return (values - mean) / std


def calibration(resolution, count=8):
    """Return a calibration set."""
    return CalibrationSet(images=pixels(resolution, count), source="pixels", sha256="c0ffee")


@functools.cache
def folded(family, resolution=32, *, short=False, classes=CLASSES, **options):
    """Return a folded network; `short` takes `SHORT_ROWS`, `options` are the architecture's."""
    rows = SHORT_ROWS[family] if short else None
    spec = ModelSpec(
        family=family,
        width=0.25,
        resolution=resolution,
        num_classes=classes,
        weights="random",
        architecture=ArchitectureOptions(rows=rows, **options),
    )
    module = create(spec)
    if options.get("norm") != "none":
        randomize_batch_norm(module, seed=1)
    provenance = WeightsProvenance(source="random", origin="seed 0")
    labels = LABELS[:classes]
    return fold(
        FloatModel(info=spec.network_info(provenance, Preprocessing(), labels), module=module)
    )


def model_of(module, resolution=32):
    """Return a folded model around any module of 3-channel images."""
    model = folded("v1", short=True)
    input_ = replace(model.info.input, height=resolution, width=resolution)
    return replace(described(model, input=input_), module=module.eval())


def spec_of(model):
    """Return the specification that a network was built from."""
    return ModelSpec.from_document(model.info.source)


def described(model, *, spec=None, **changes):
    """Return a copy of a network with other fields in its `NetworkInfo`."""
    source = model.info.source if spec is None else asdict(spec)
    return replace(model, info=replace(model.info, source=source, **changes))


def taking(model, format_):
    """Return a copy of a network whose input has another format."""
    return described(model, input=replace(model.info.input, format=INPUT_FORMATS[format_]))


@functools.cache
def quantized_for_pixels(family, format_="rgba-u8", resolution=32, *, short=True, **options):
    """Return the int8 network with pixels as its input."""
    model = fold_preprocessing(taking(folded(family, resolution, short=short, **options), format_))
    image = model.info.input
    images = folded_inputs(artifact_inputs(pixels(resolution), image), image)
    calibrated = CalibrationSet(images=images, source="pixels", sha256="c0ffee")
    return quantize(equalize(model, calibrated), calibrated)


@functools.cache
def equalized(family, resolution=32, *, short=False, **options):
    """Return the network after equalization."""
    return equalize(folded(family, resolution, short=short, **options), calibration(resolution))


@functools.cache
def quantized(family, resolution=32, *, short=False, **options):
    """Return the int8 network."""
    model = equalized(family, resolution, short=short, **options)
    return quantize(model, calibration(resolution))


def recipe_for(model, preset="balanced", **fields):
    """Return the recipe of a preset with the equalization that the model has."""
    return replace(RECIPES[preset], equalization=model.equalization, **fields)


SAME = 1e-5


def outputs(model, images):
    """Return a float network's logits."""
    with torch.no_grad():
        return model.module(torch.from_numpy(images)).numpy()


def assert_same_outputs(one, other, images):
    """Fail unless two float networks compute the same on images that give different logits."""
    before, after = outputs(one, images), outputs(other, images)
    assert np.ptp(before, axis=0).min() > 100 * SAME * np.abs(before).max()
    assert np.abs(after - before).max() <= SAME * np.abs(before).max()


def with_program(program):
    """Return an int8 network with another program, for example one of a single operator."""
    return replace(quantized("v1", short=True), program=program)
