"""Two artifacts side by side: each thing that differs is found, and nothing else."""

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
from mobiledeploy.diff.text import encodings_in_words, headline
from mobiledeploy.diff.types import PairedComparison
from mobiledeploy.errors import ArtifactError
from mobiledeploy.network import Encoding, QuantRecipe, WeightsProvenance
from mobiledeploy.pipeline.diff import diff as compare_artifacts
from mobiledeploy.utils.files import sha256_of

FILE = WeightsProvenance(source="file", origin="here/own.pth", sha256="abc", dialect="timm")

KNOWN = ("spec", "provenance", "input", "outputs")  # what is known of a network, not its numbers


@pytest.fixture
def side(tmp_path, exported_to):
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
    return [part.name for part in difference.changed_parts]


def test_an_artifact_and_its_copy_do_not_differ(side):
    difference = compare_artifacts(side("a"), side("b"))
    assert difference.same
    assert changed(difference) == []
    assert difference.encodings.moved == ()
    assert difference.encodings.common == len(networks.quantized("v2", short=True).encodings)
    assert difference.files.operators == ()
    assert list(headline(difference)) == ["No difference: the same bytes, made from the same."]


SPEC = networks.spec_of(networks.folded("v2", short=True))
OTHER_SEED = replace(SPEC, seed=3)
INFO = networks.folded("v2", short=True).info
(OUTPUT,) = INFO.outputs
CLOSER = replace(networks.Preprocessing(), crop_pct=1.0)


@pytest.mark.parametrize(
    ("part", "changes"),
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
def test_what_went_in_differently_is_named(side, part, changes):
    difference = compare_artifacts(side("a"), side("b", **changes))
    assert changed(difference) == [part]
    assert not difference.same
    said = " ".join(headline(difference))
    assert f"differs in one thing, {part}:" in said
    assert "The bytes are the same all the same" in said  # nothing was exported anew


def test_a_recipe_that_an_older_manifest_tells_less_of_is_the_same(side):
    a, b = side("a"), side("b")
    document = json.loads(manifest_path(a).read_text())
    del document["recipe"]["float_layers"]
    manifest_path(a).write_text(json.dumps(document))
    assert changed(compare_artifacts(a, b)) == []


def test_several_things_are_to_be_told_apart(side):
    other = side("b", calibration_sha256="decaf", recipe=QuantRecipe(rounding="nearest"))
    said = " ".join(headline(compare_artifacts(side("a"), other)))
    assert "differs in calibration and recipe" in said
    assert "change one at a time" in said


def test_where_files_lay_makes_no_difference(side):
    a = side("a", provenance=FILE, calibration_source="photos")
    moved = replace(FILE, origin="there/own.pth", notes=("read there",))
    spec = replace(SPEC, weights="there/own.pth")
    b = side("b", provenance=moved, spec=spec, calibration_source="pictures")
    difference = compare_artifacts(a, b)
    assert changed(difference) == []
    assert difference.same


def test_a_seed_counts_where_weights_are_random_only(side):
    trained = side("a", provenance=FILE)
    assert changed(compare_artifacts(trained, side("b", provenance=FILE, spec=OTHER_SEED))) == []
    seed = WeightsProvenance(source="random", origin="seed 3")
    random = side("c"), side("d", provenance=seed, spec=OTHER_SEED)
    assert changed(compare_artifacts(*random)) == ["weights"]


def test_moved_encodings_are_ranked_by_how_far_they_moved(side):
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
    b = side("b", encodings={**model.encodings, **moved}, encodings_digest="other")
    found = compare_artifacts(side("a"), b).encodings
    assert [pair.name for pair in found.moved] == [second, first]
    assert [pair.scale_ratio for pair in found.moved] == [2, 1.25]
    assert found.moved[0].b == moved[second]
    assert not found.same_network
    said = " ".join(encodings_in_words(found))
    assert f"2 of {found.common} activations moved. Scale of B over A: 1.25 to 2.00" in said


def test_a_zero_point_that_moved_is_a_move(side):
    model = networks.quantized("v2", short=True)
    name = next(iter(model.encodings))
    old = model.encodings[name]
    moved = {name: replace(old, zero_point=old.zero_point + 1)}
    b = side("b", encodings={**model.encodings, **moved})
    (pair,) = compare_artifacts(side("a"), b).encodings.moved
    assert pair.distance == pytest.approx(1 / 255)
    assert pair.layer == model.layers[name]


def test_activations_are_named_by_their_module(side):
    model = networks.quantized("v2", short=True)
    encodings = {name: replace(e, scale=e.scale * 2) for name, e in model.encodings.items()}
    found = compare_artifacts(side("a"), side("b", encodings=encodings)).encodings
    layers = {pair.name: pair.layer for pair in found.moved}
    assert layers == dict(model.layers)
    assert {layer.split(".")[0] for layer in layers.values()} == {"", "features", "classifier"}


def test_activations_of_one_side_alone_are_named(side):
    model = networks.quantized("v2", short=True)
    first, *rest = model.encodings
    fewer = {name: model.encodings[name] for name in rest}
    found = compare_artifacts(side("a"), side("b", encodings=fewer)).encodings
    assert (found.only_a, found.only_b) == ((first,), ())
    found = compare_artifacts(side("c", encodings=fewer), side("d")).encodings
    assert (found.only_a, found.only_b) == ((), (first,))


def test_weights_that_were_rounded_in_another_way_are_told_from_encodings(side):
    found = compare_artifacts(side("a"), side("b", encodings_digest="other"))
    assert not found.same
    assert "rounded in another way" in " ".join(encodings_in_words(found.encodings))
    assert "All that went in is the same, the int8 network is not" in " ".join(headline(found))


def test_operators_are_counted_in_the_files(side):
    a, b = side("a"), side("b", precision="fp32")
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


def test_two_formats_of_one_network(side):
    difference = compare_artifacts(side("a"), side("b", format_="pte"))
    assert changed(difference) == []
    assert difference.files.operators is None
    assert any("operators of different names" in note for note in difference.notes)
    assert "in two formats" in " ".join(headline(difference))


def test_a_manifest_will_do_where_nothing_is_run(side, pictures):
    a, b = side("a"), side("b")
    b.unlink()
    difference = compare_artifacts(manifest_path(a), manifest_path(b))
    assert difference.same
    assert difference.files.operators is None
    assert any("is not beside its manifest" in note for note in difference.notes)
    with pytest.raises(ArtifactError, match="cannot be run"):
        compare_artifacts(manifest_path(a), manifest_path(b), pictures)


def test_what_is_not_there_is_named(tmp_path):
    for name, said in (("none.onnx", "no file"), ("none.onnx.json", "no manifest at")):
        with pytest.raises(ArtifactError, match=rf"{said} .*{name}"):
            compare_artifacts(tmp_path / name, tmp_path / name)


def test_an_artifact_that_is_not_its_manifests_is_refused(side):
    a, b = side("a"), side("b")
    planted.plant(b, b, planted.perturbed_weight(0))
    for given in (b, manifest_path(b)):
        with pytest.raises(ArtifactError, match="not the file that its manifest describes"):
            compare_artifacts(a, given)


@pytest.mark.parametrize("key", ["size_bytes", "format", "sha256"])
def test_a_manifest_without_what_is_compared_is_damaged(side, key):
    a, b = side("a"), side("b")
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


def test_outputs_of_two_formats_are_the_same(side, pictures):
    outputs = compare_artifacts(side("a"), side("b", format_="pte"), pictures).outputs
    assert (outputs.count, outputs.figures["differing_logits"], outputs.flips) == (6, 0, ())
    assert (outputs.right.a, outputs.right.b) == (0, 0)
    assert outputs.nearer == outputs.right  # nobody's image
    assert outputs.a_loss == outputs.b_loss


def test_outputs_that_differ_are_told_image_by_image(side, pictures):
    """Two classes of B have changed places, and the labels are what A says."""
    a, b = side("a"), side("b", fault=planted.swapped_channels(-1))
    truth, other = top_classes(a, pictures), top_classes(b, pictures)
    lines = [f"{number}.png,{label}" for number, label in enumerate(truth)]
    (pictures / "labels.csv").write_text("\n".join(["file,class_index", *lines]))
    flipped = [number for number in range(6) if truth[number] != other[number]]
    outputs = compare_artifacts(a, b, pictures).outputs
    assert (outputs.right.a, outputs.right.b) == (len(flipped), 0)
    assert outputs.both_right == 6 - len(flipped)
    assert outputs.figures["flips"] == len(flipped) > 0
    assert sorted(flip.image for flip in outputs.flips) == [f"{number}.png" for number in flipped]
    for flip in outputs.flips:
        number = int(flip.image[0])
        assert (flip.a, flip.b) == (
            networks.LABELS[truth[number]],
            networks.LABELS[other[number]],
        )
        assert flip.truth == flip.a
        assert flip.margin > 0
    margins = [flip.margin for flip in outputs.flips]
    assert margins == sorted(margins, reverse=True)


def top_classes(artifact, pictures):
    """Return the class that an artifact gives each image, by itself."""
    from mobiledeploy.data.calibration import load_calibration
    from mobiledeploy.runtimes.open import open_runner

    images = load_calibration(pictures, networks.folded("v2", short=True).info)
    with open_runner(artifact) as runner:
        logits = runner.run({"input": images.images})["logits"]
    return logits.argmax(1).tolist()


def test_the_nearer_one_has_the_smaller_error_on_an_image():
    from mobiledeploy.diff.outputs import _nearer

    known = np.zeros((4, 10), np.float32)
    near, far = known + np.float32(0.1), known + np.float32(1)
    near[3] = 2  # on this image the far one is nearer
    assert _nearer([known, known], [near, far]) == PairedComparison(a=3, b=1, chance=0.625)
    assert _nearer([known, known], [far, near]) == PairedComparison(a=1, b=3, chance=0.625)
    assert _nearer([known, None], [near, far]) is None


def test_logits_that_are_no_numbers_are_told_and_not_compared(side, pictures):
    a, b = side("a"), side("b", fault=planted.not_a_number)
    difference = compare_artifacts(a, b, pictures)
    assert difference.outputs is None
    assert any(f"60 of 60 logits of {b} are NaN" in note for note in difference.notes)


def test_images_that_calibrated_one_of_them_suit_it(side, pictures):
    a, b = side("a"), side("b", calibration_source=str(pictures))
    notes = compare_artifacts(a, b, pictures).notes
    assert [note for note in notes if "they suit it" in note] == [
        f"{b} was calibrated with images of {pictures}: they suit it."
    ]


def test_without_its_weights_an_artifact_is_compared_all_the_same(side, pictures):
    gone = replace(SPEC, weights="gone.pth")
    difference = compare_artifacts(side("a"), side("b", spec=gone, provenance=FILE), pictures)
    assert difference.outputs.a_loss is not None
    assert difference.outputs.b_loss is None
    assert difference.outputs.nearer is None
    assert any("no longer at gone.pth" in note for note in difference.notes)
