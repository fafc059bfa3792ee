"""Comparing two artifacts finds everything that differs, and nothing else."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import networks
import numpy as np
import onnx
import planted
import pytest
from PIL import Image

from mobiledeploy.artifact.manifest import manifest_path, write_manifest
from mobiledeploy.diff.text import describe_encodings, headline
from mobiledeploy.diff.types import PairedComparison
from mobiledeploy.errors import ArtifactError
from mobiledeploy.network import WeightsProvenance
from mobiledeploy.pipeline.diff import diff as compare_artifacts
from mobiledeploy.stages import Encoding, QuantRecipe
from mobiledeploy.utils.files import sha256_of

FILE = WeightsProvenance(source="file", origin="here/own.pth", sha256="abc", dialect="timm")

KNOWN = ("spec", "provenance", "input", "outputs")  # fields of NetworkInfo


@pytest.fixture
def artifact(tmp_path, exported_to):
    """Return a function that writes an artifact and its manifest into a folder of their own."""

    def write(
        name, family="v2", format_="onnx", precision="int8", fault=None, tools=None, **changes
    ):
        made = exported_to(format_, family, 64 if family.startswith("v3") else 32)
        if precision == "fp32":
            made = exported_to(format_, family, precision="fp32")
        path = tmp_path / name / made.path.name
        path.parent.mkdir()
        shutil.copy(made.path, path)
        if fault is not None:
            planted.plant(path, path, fault)
        make = networks.quantized if precision == "int8" else networks.folded
        model = make(family, 64 if family.startswith("v3") else 32, short=True)
        made = replace(
            made,
            path=path,
            sha256=sha256_of(path),
            size_bytes=path.stat().st_size,
            tool_versions=tools or made.tool_versions,
        )
        known = {name: changes.pop(name) for name in KNOWN if name in changes}
        write_manifest(made, replace(networks.described(model, **known), **changes), None)
        return path

    return write


def changed(difference):
    return [entry.name for entry in difference.changed_inputs]


def test_a_copy_does_not_differ(artifact):
    difference = compare_artifacts(artifact("a"), artifact("b"))
    assert difference.same
    assert changed(difference) == []
    assert difference.encodings.moved == ()
    assert difference.encodings.common == len(networks.quantized("v2", short=True).encodings)
    assert difference.files.operators == ()
    assert list(headline(difference)) == ["No difference: same bytes, same inputs."]


SPEC = networks.spec_of(networks.folded("v2", short=True))
OTHER_SEED = replace(SPEC, seed=3)
INFO = networks.folded("v2", short=True).info
(OUTPUT,) = INFO.outputs
CLOSER = replace(networks.Preprocessing(), crop_pct=1.0)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("network", {"spec": replace(SPEC, dropout=0.5)}),
        ("weights", {"provenance": WeightsProvenance(source="random", origin="seed 7")}),
        ("preprocessing", {"input": replace(INFO.input, preprocessing=CLOSER)}),
        (
            "labels",
            {"outputs": (replace(OUTPUT, labels=("class 0", "other", *networks.LABELS[2:])),)},
        ),
        ("labels", {"outputs": (replace(OUTPUT, labels=()),)}),
        ("calibration", {"calibration_sha256": "decaf"}),
        ("calibration", {"calibration_count": 9}),
        ("recipe", {"recipe": QuantRecipe(rounding="nearest")}),
        ("tools", {"tools": {"torch": "1"}}),
    ],
)
def test_a_changed_input_is_named(artifact, name, changes):
    difference = compare_artifacts(artifact("a"), artifact("b", **changes))
    assert changed(difference) == [name]
    assert not difference.same
    text = " ".join(headline(difference))
    assert f"The inputs differ in {name} only" in text
    assert "The bytes are the same nevertheless" in text  # the test copies one artifact


def test_a_field_that_an_older_manifest_lacks_has_its_default(artifact):
    a, b = artifact("a"), artifact("b")
    document = json.loads(manifest_path(a).read_text())
    del document["recipe"]["float_layers"]
    manifest_path(a).write_text(json.dumps(document))
    assert changed(compare_artifacts(a, b)) == []


def test_several_changed_inputs_are_listed(artifact):
    other = artifact("b", calibration_sha256="decaf", recipe=QuantRecipe(rounding="nearest"))
    text = " ".join(headline(compare_artifacts(artifact("a"), other)))
    assert "The inputs differ in calibration and recipe." in text
    assert "Change one at a time" in text


def test_paths_make_no_difference(artifact):
    a = artifact("a", provenance=FILE, calibration_source="photos")
    moved = replace(FILE, origin="there/own.pth", notes=("read there",))
    spec = replace(SPEC, weights="there/own.pth")
    b = artifact("b", provenance=moved, spec=spec, calibration_source="pictures")
    difference = compare_artifacts(a, b)
    assert changed(difference) == []
    assert difference.same


def test_the_seed_only_matters_for_random_weights(artifact):
    trained = artifact("a", provenance=FILE)
    assert (
        changed(compare_artifacts(trained, artifact("b", provenance=FILE, spec=OTHER_SEED))) == []
    )
    seed = WeightsProvenance(source="random", origin="seed 3")
    random = artifact("c"), artifact("d", provenance=seed, spec=OTHER_SEED)
    assert changed(compare_artifacts(*random)) == ["weights"]


def test_moved_encodings_are_sorted_by_distance(artifact):
    model = networks.quantized("v2", short=True)
    first, second, *_ = model.encodings
    moved = {
        first: Encoding(
            scale=model.encodings[first].scale * 1.25, zero_point=model.encodings[first].zero_point
        ),
        second: Encoding(
            scale=model.encodings[second].scale * 2, zero_point=model.encodings[second].zero_point
        ),
    }
    b = artifact("b", encodings={**model.encodings, **moved}, encodings_digest="other")
    found = compare_artifacts(artifact("a"), b).encodings
    assert [pair.name for pair in found.moved] == [second, first]
    assert [pair.scale_ratio for pair in found.moved] == [2, 1.25]
    assert found.moved[0].b == moved[second]
    assert not found.same_network
    text = " ".join(describe_encodings(found))
    assert f"2 of {found.common} activations differ. Scale of B over A: 1.25 to 2.00" in text


def test_a_changed_zero_point_moves_an_encoding(artifact):
    model = networks.quantized("v2", short=True)
    name = next(iter(model.encodings))
    old = model.encodings[name]
    moved = {name: replace(old, zero_point=old.zero_point + 1)}
    b = artifact("b", encodings={**model.encodings, **moved})
    (pair,) = compare_artifacts(artifact("a"), b).encodings.moved
    assert pair.distance == pytest.approx(1 / 255)
    assert pair.layer == model.layers[name]


def test_activations_are_listed_with_their_layer(artifact):
    model = networks.quantized("v2", short=True)
    encodings = {name: replace(e, scale=e.scale * 2) for name, e in model.encodings.items()}
    found = compare_artifacts(artifact("a"), artifact("b", encodings=encodings)).encodings
    layers = {pair.name: pair.layer for pair in found.moved}
    assert layers == dict(model.layers)
    assert {layer.split(".")[0] for layer in layers.values()} == {"", "features", "classifier"}


def test_activations_of_one_artifact_only_are_named(artifact):
    model = networks.quantized("v2", short=True)
    first, *rest = model.encodings
    fewer = {name: model.encodings[name] for name in rest}
    found = compare_artifacts(artifact("a"), artifact("b", encodings=fewer)).encodings
    assert (found.only_a, found.only_b) == ((first,), ())
    found = compare_artifacts(artifact("c", encodings=fewer), artifact("d")).encodings
    assert (found.only_a, found.only_b) == ((), (first,))


def test_different_rounding_of_weights_is_noticed(artifact):
    found = compare_artifacts(artifact("a"), artifact("b", encodings_digest="other"))
    assert not found.same
    assert "rounded differently" in " ".join(describe_encodings(found.encodings))
    assert "The inputs are the same, but the int8 networks differ" in " ".join(headline(found))


@pytest.mark.ci
def test_operators_are_counted_in_the_files(artifact):
    a, b = artifact("a"), artifact("b", precision="fp32")
    difference = compare_artifacts(a, b)
    assert not difference.files.same_bytes
    stored = {
        change.name: (change.a, change.b)
        for change in difference.files.operators
        if change.where == "graph as stored"
    }
    counts = [Counter(node.op_type for node in onnx.load(path).graph.node) for path in (a, b)]
    assert stored["QuantizeLinear"] == (counts[0]["QuantizeLinear"], 0)
    assert stored["QuantizeLinear"][0] > 0
    assert difference.files.constants["int8"][1] == 0
    assert (difference.files.a_bytes, difference.files.b_bytes) == (
        a.stat().st_size,
        b.stat().st_size,
    )
    assert difference.files.int8_macs_shares == (1.0, 0.0)
    assert changed(difference) == ["network", "calibration", "recipe"]
    assert len(difference.encodings.only_a) == len(networks.quantized("v2", short=True).encodings)


@pytest.mark.ci
def test_two_formats_of_one_network(artifact):
    difference = compare_artifacts(artifact("a"), artifact("b", format_="pte"))
    assert changed(difference) == []
    assert difference.files.operators is None
    assert any("name operators differently" in note for note in difference.notes)
    assert "in two formats" in " ".join(headline(difference))


def test_manifests_alone_can_be_compared(artifact, pictures):
    a, b = artifact("a"), artifact("b")
    b.unlink()
    difference = compare_artifacts(manifest_path(a), manifest_path(b))
    assert difference.same
    assert difference.files.operators is None
    assert any("is not beside its manifest" in note for note in difference.notes)
    with pytest.raises(ArtifactError, match="cannot be run"):
        compare_artifacts(manifest_path(a), manifest_path(b), pictures)


def test_missing_files_are_named(tmp_path):
    for name, message in (("none.onnx", "no file"), ("none.onnx.json", "no manifest at")):
        with pytest.raises(ArtifactError, match=rf"{message} .*{name}"):
            compare_artifacts(tmp_path / name, tmp_path / name)


def test_an_artifact_of_another_export_is_refused(artifact):
    a, b = artifact("a"), artifact("b")
    planted.plant(b, b, planted.perturbed_weight(0))
    for given in (b, manifest_path(b)):
        with pytest.raises(ArtifactError, match="not the file that its manifest describes"):
            compare_artifacts(a, given)


@pytest.mark.parametrize("key", ["size_bytes", "format", "sha256"])
def test_an_incomplete_manifest_is_refused(artifact, key):
    a, b = artifact("a"), artifact("b")
    document = json.loads(manifest_path(b).read_text())
    del document["artifact"][key]
    manifest_path(b).write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="damaged"):
        compare_artifacts(a, manifest_path(b))


@pytest.fixture
def pictures(tmp_path):
    """Six pictures with labels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(3)
    lines = ["file,class_index"]
    for number in range(6):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_two_formats_have_equal_outputs(artifact, pictures):
    outputs = compare_artifacts(artifact("a"), artifact("b", format_="pte"), pictures).outputs
    assert (outputs.count, outputs.metrics["differing_logits"], outputs.flips) == (6, 0, ())
    assert (outputs.correct.a, outputs.correct.b) == (0, 0)
    assert outputs.closer_to_float == outputs.correct  # both are 0 to 0
    assert outputs.a_against_float == outputs.b_against_float


def test_different_outputs_are_listed_by_image(artifact, pictures):
    """Two classes of B are swapped, and the labels are the predictions of A."""
    a, b = artifact("a"), artifact("b", fault=planted.swapped_channels(-1))
    truth, other = top_classes(a, pictures), top_classes(b, pictures)
    lines = [f"{number}.png,{label}" for number, label in enumerate(truth)]
    (pictures / "labels.csv").write_text("\n".join(["file,class_index", *lines]))
    flipped = [number for number in range(6) if truth[number] != other[number]]
    outputs = compare_artifacts(a, b, pictures).outputs
    assert (outputs.correct.a, outputs.correct.b) == (len(flipped), 0)
    assert outputs.both_correct == 6 - len(flipped)
    assert outputs.metrics["flips"] == len(flipped) > 0
    assert sorted(flip.image for flip in outputs.flips) == [f"{number}.png" for number in flipped]
    for flip in outputs.flips:
        number = int(flip.image[0])
        assert (flip.a, flip.b) == (
            networks.LABELS[truth[number]],
            networks.LABELS[other[number]],
        )
        assert flip.label == flip.a
        assert flip.margin > 0
    margins = [flip.margin for flip in outputs.flips]
    assert margins == sorted(margins, reverse=True)


def top_classes(artifact, pictures):
    """Return the class that an artifact predicts for each image."""
    from mobiledeploy.data.calibration import load_calibration
    from mobiledeploy.runtimes.open import open_runner

    images = load_calibration(pictures, networks.folded("v2", short=True).info)
    with open_runner(artifact) as runner:
        logits = runner.run({"input": images.images})["logits"]
    return logits.argmax(1).tolist()


def test_the_smaller_squared_error_is_closer_to_float():
    from mobiledeploy.diff.outputs import _closer_to_float

    known = np.zeros((4, 10), np.float32)
    near, far = known + np.float32(0.1), known + np.float32(1)
    near[3] = 2  # on this image the other one is closer
    assert _closer_to_float([known, known], [near, far]) == PairedComparison(
        a=3, b=1, p_value=0.625
    )
    assert _closer_to_float([known, known], [far, near]) == PairedComparison(
        a=1, b=3, p_value=0.625
    )
    assert _closer_to_float([known, None], [near, far]) is None


def test_logits_that_are_not_finite_are_not_compared(artifact, pictures):
    a, b = artifact("a"), artifact("b", fault=planted.not_a_number)
    difference = compare_artifacts(a, b, pictures)
    assert difference.outputs is None
    assert any(f"60 of 60 logits of {b} are NaN" in note for note in difference.notes)


def test_images_that_calibrated_one_artifact_are_noted(artifact, pictures):
    a, b = artifact("a"), artifact("b", calibration_source=str(pictures))
    notes = compare_artifacts(a, b, pictures).notes
    assert [note for note in notes if "favours" in note] == [
        f"{b} was calibrated with images from {pictures}, which favours it."
    ]


def test_an_artifact_without_its_checkpoint_is_compared_in_part(artifact, pictures):
    gone = replace(SPEC, weights="gone.pth")
    difference = compare_artifacts(
        artifact("a"), artifact("b", spec=gone, provenance=FILE), pictures
    )
    assert difference.outputs.a_against_float is not None
    assert difference.outputs.b_against_float is None
    assert difference.outputs.closer_to_float is None
    assert any("no longer at gone.pth" in note for note in difference.notes)
