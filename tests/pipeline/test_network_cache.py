"""Int8 networks in the cache: the same network as when it was exported."""

import dataclasses
import os
from contextlib import nullcontext
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.artifact.manifest import read_manifest, write_manifest
from mobiledeploy.export.write import export
from mobiledeploy.network import RECIPES
from mobiledeploy.pipeline import network_cache
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.utils.progress import reporting_to

CALIBRATION = networks.calibration(32, 16)
RECIPE = RECIPES["fast"]


class Warnings:
    """A reporter that keeps the warnings."""

    def __init__(self):
        self.messages = []

    def step(self, _description):
        return nullcontext()

    def track(self, items, _description, _total):
        return iter(items)

    def warn(self, message):
        self.messages.append(message)


def network():
    return build("v1", weights="random", width=0.25, resolution=32, num_classes=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Manifest and stages of an int8 network."""
    stages = run_stages(network(), CALIBRATION, RECIPE)
    artifact = export(stages.deployed, Format.ONNX, tmp_path_factory.mktemp("made") / "a.onnx")
    write_manifest(artifact, stages.deployed, None)
    return read_manifest(artifact.path), stages


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "networks"


@pytest.fixture
def exported(made, cache):
    """The same; the cache holds the network."""
    manifest, stages = made
    network_cache.remember(stages)
    assert len(list(cache.iterdir())) == 2
    return manifest, stages.deployed


def recalled(manifest):
    """Return what the cache has for a manifest, and the warnings."""
    warnings = Warnings()
    with reporting_to(warnings):
        return network_cache.recall(manifest, network(), CALIBRATION), warnings.messages


def test_the_network_is_the_one_that_was_exported(exported):
    manifest, made = exported
    stages, warnings = recalled(manifest)
    assert not warnings
    for field in dataclasses.fields(made):
        if field.name not in {"program", "info"}:
            assert getattr(stages.deployed, field.name) == getattr(made, field.name), field.name
    images = networks.pixels(32, seed=1)
    logits = [IntegerReference(m).run({"input": images})["logits"] for m in (made, stages.deployed)]
    np.testing.assert_array_equal(*logits)
    known = torch.from_numpy(CALIBRATION.images)  # on others, ReLU6 may clip after equalization
    with torch.no_grad():
        a, b = (m.module(known) for m in (stages.equalized, stages.folded))
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_network_of_other_weights_encodings_or_recipe_is_not_found(exported):
    manifest, _ = exported
    other = manifest.model_copy(update={"encodings_sha256": "0" * 64})
    assert recalled(other) == (None, [])
    weights = manifest.weights.model_copy(update={"sha256": "0" * 64})
    assert recalled(manifest.model_copy(update={"weights": weights})) == (None, [])
    recipe = replace(manifest.recipe, float_layers=("features.9",))
    assert recalled(manifest.model_copy(update={"recipe": recipe})) == (None, [])


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_entry_is_a_warning(exported, cache, suffix, damage):
    manifest, _ = exported
    (entry,) = cache.glob(f"*{suffix}")
    content = bytearray(entry.read_bytes())
    if damage == "remove":
        entry.unlink()
    elif damage == "truncate":
        entry.write_bytes(content[: len(content) // 2])
    else:
        content[0] ^= 1
        entry.write_bytes(content)
    found, warnings = recalled(manifest)
    assert found is None
    missing = suffix == ".json" and damage == "remove"
    assert len(warnings) == (0 if missing else 1)
    assert all("is unusable, so it is made again" in warning for warning in warnings)


def test_a_cache_that_cannot_be_written_is_a_warning(made, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    warnings = Warnings()
    with reporting_to(warnings):
        network_cache.remember(made[1])
    (message,) = warnings.messages
    assert message.startswith("The int8 network was not kept in the cache: Could not write")


def test_the_oldest_entries_are_removed(made, cache):
    cache.mkdir(parents=True)
    for age in range(network_cache.ENTRIES + 3):
        for suffix in (".json", ".safetensors"):
            path = cache / f"{age:02}{suffix}"
            path.touch()
            os.utime(path, (1000 - age, 1000 - age))
    network_cache.remember(made[1])
    left = {path.stem for path in cache.iterdir()}
    assert len(left) == network_cache.ENTRIES
    assert {"00", "14"} <= left
    assert "15" not in left
