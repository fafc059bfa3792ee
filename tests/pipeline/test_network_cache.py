"""Int8 networks in the cache: the same network as when it was exported."""

import dataclasses
import os
import random
import threading
from contextlib import nullcontext
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.artifact.manifest import read_manifest, write_manifest
from mobiledeploy.export.write import export
from mobiledeploy.pipeline import network_cache
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.stages import RECIPES
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
    assert len(list(cache.iterdir())) == 1
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


@pytest.mark.parametrize("at", [0, 40, -1])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_entry_is_a_warning(exported, cache, at, damage):
    manifest, _ = exported
    (entry,) = cache.iterdir()
    content = bytearray(entry.read_bytes())
    if damage == "flip":
        content[at] ^= 1
        entry.write_bytes(content)
    else:
        entry.write_bytes(content[:at] if damage == "truncate" else b"")
    found, warnings = recalled(manifest)
    assert found is None
    (warning,) = warnings
    assert "is unusable, so it is made again" in warning


def test_an_entry_that_is_gone_is_none(exported, cache):
    manifest, _ = exported
    (entry,) = cache.iterdir()
    entry.unlink()
    assert recalled(manifest) == (None, [])


def test_nothing_is_kept_and_nothing_removed_if_the_variable_says_so(made, cache, monkeypatch):
    cache.mkdir(parents=True)
    others = [cache / f"{age:02}.network" for age in range(network_cache.ENTRIES + 1)]
    for other in others:
        other.touch()
    monkeypatch.setenv("MOBILEDEPLOY_KEEP_NETWORKS", "0")
    network_cache.remember(made[1])
    assert sorted(cache.iterdir()) == others


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
        path = cache / f"{age:02}.network"
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    network_cache.remember(made[1])
    left = {path.stem for path in cache.iterdir()}
    assert len(left) == network_cache.ENTRIES
    assert {"00", "14"} <= left
    assert "15" not in left


def test_entries_in_the_earlier_form_are_removed_and_other_files_are_not(made, cache):
    cache.mkdir(parents=True)
    for name in ("a" * 64, "notes"):
        for suffix in (".json", ".safetensors"):
            (cache / f"{name}{suffix}").touch()
    network_cache.remember(made[1])
    left = {path.name for path in cache.iterdir() if path.suffix != ".network"}
    assert left == {"notes.json", "notes.safetensors"}


def test_a_new_entry_stays_if_the_clock_has_gone_back(made, cache):
    cache.mkdir(parents=True)
    for number in range(network_cache.ENTRIES + 1):
        path = cache / f"{number:02}.network"
        path.touch()
        os.utime(path, (1e10 + number, 1e10 + number))  # in the year 2286
    network_cache.remember(made[1])
    assert recalled(made[0])[0] is not None
    assert len(list(cache.iterdir())) == network_cache.ENTRIES


def test_an_entry_that_changes_while_it_is_read_is_never_believed(exported, cache):
    manifest, network = exported
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    stopped = threading.Event()

    def damage():
        generator = random.Random(0)
        while not stopped.is_set():
            content = bytearray(whole)
            content[generator.randrange(len(content))] ^= 1
            entry.write_bytes(content)
            entry.write_bytes(whole)

    thread = threading.Thread(target=damage)
    thread.start()
    try:
        found = [recalled(manifest) for _ in range(5)]
    finally:
        stopped.set()
        thread.join()
    for stages, warnings in found:
        if stages is None:
            assert "is unusable, so it is made again" in warnings[0]
        else:
            assert stages.deployed.encodings == network.encodings
