"""The stages in order, and the only module that knows them all.

spec ─▶ build ─▶ fold ─▶ equalize ─▶ quantize ─▶ export ─▶ parity
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledeploy import data, models
from mobiledeploy import weights as _weights
from mobiledeploy.equalize import equalize
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.export import artifact_name, export_executorch, export_onnx
from mobiledeploy.export.manifest import Manifest, read_manifest, write_manifest
from mobiledeploy.files import require_writable
from mobiledeploy.fold import fold
from mobiledeploy.progress import step, track
from mobiledeploy.quantize import quantize
from mobiledeploy.quantize.reference import IntegerReference
from mobiledeploy.runtimes import open_runner
from mobiledeploy.runtimes.eager import EagerRunner
from mobiledeploy.types import (
    FAMILIES,
    INPUT_NAME,
    OUTPUT_NAME,
    Artifact,
    CalibrationSet,
    FloatModel,
    FoldedModel,
    Format,
    ModelSpec,
    ParityReport,
    Preprocessing,
    QuantizedModel,
    QuantRecipe,
    family_named,
)
from mobiledeploy.verify.parity import Tolerances, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Deployment", "build", "check_parity", "deploy", "equalize", "fold", "load_images"]

_PARITY_IMAGES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What `deploy` made.

    Attributes:
        model: The network that the artifacts encode.
        manifests: Beside each artifact, in the same order.
        parity: None where it was not asked for.
    """

    model: QuantizedModel | FoldedModel
    artifacts: tuple[Artifact, ...]
    manifests: tuple[Path, ...]
    parity: ParityReport | None


def build(
    model: str | None = None,
    *,
    config: Path | None = None,
    weights: str | None = None,
    preprocessing: Preprocessing | None = None,
    labels: Path | None = None,
    **fields: Any,
) -> FloatModel:
    """Build a network and load its weights.

    Args:
        model: "v1", "v2", "v3-large" (or "v3"), "v3-small"; may be left out where `config` says it.
        config: A YAML file with fields of `ModelSpec` (see `models.config`).
        weights: "imagenet" (the default), "random", or the path of a checkpoint, from whose tensors
            width and number of classes are read.
        preprocessing: Overrides what the weights imply.
        labels: A file with one class name a line; ImageNet's by default for 1000 trained classes.
        **fields: Any other field of `ModelSpec`; it overrides the file's. What is given, here or
            there, must not contradict the weights.

    Raises:
        UsageError: no such family, or fields that contradict one another.
        LoadError: the file cannot be read.
        WeightsError: the weights cannot be had, read or mapped onto the network.
    """
    given = _given(model, config) | fields | ({} if weights is None else {"weights": weights})
    with step("Building the network"):
        resolved = _weights.resolve(ModelSpec(**given), set(given), models.create_on_meta)
        module = models.create(resolved.spec)
        if resolved.spec.weights == "random":
            models.randomize_batch_norm(module, resolved.spec.seed)
    provenance = _weights.load_weights(module, resolved.spec)
    names = resolved.labels
    if labels is not None or (resolved.spec.weights != "random" and not names):
        names = data.load_labels(labels, resolved.spec.num_classes)
    implied = resolved.preprocessing or data.default_preprocessing(resolved.spec.in_channels)
    return FloatModel(
        spec=resolved.spec,
        module=module.eval(),
        provenance=replace(provenance, notes=(*resolved.notes, *provenance.notes)),
        preprocessing=preprocessing or implied,
        labels=names,
    )


def _given(model: str | None, config: Path | None) -> dict[str, Any]:
    """Return the fields of `ModelSpec` that a model's name and a file state."""
    if config is not None:
        return models.read_config(config, model)
    if model is None:
        raise UsageError(
            "No model was named.", remedy=f"Name one of {', '.join(FAMILIES)}, or give --config."
        )
    return {"family": family_named(model)}


def load_images(
    model: FloatModel | FoldedModel | QuantizedModel,
    source: Path | None,
    samples: int | None = None,
) -> CalibrationSet:
    """Load images as the network expects them; without a source, those that the package carries.

    Raises:
        DataError: there are none, too few, or one cannot be read.
    """
    if source is None:
        return data.embedded_calibration(model.spec, model.preprocessing, samples)
    return data.load_calibration(
        source, preprocessing=model.preprocessing, spec=model.spec, samples=samples
    )


def deploy(
    model: FloatModel,
    *,
    formats: Sequence[Format] = ("pte",),
    calibration: CalibrationSet | None,
    recipe: QuantRecipe | None = None,
    out: Path = Path("exports"),
    parity: bool = True,
) -> Deployment:
    """Take a built network all the way to artifacts, and check them.

    Args:
        model: From `build`.
        formats: Which artifacts to write.
        calibration: Images to quantize with; None exports float.
        recipe: How to quantize.
        out: The folder to write to.
        parity: Whether to run the artifacts against the network.

    Returns:
        Artifacts with their manifests; `parity.passed` says whether they hold what they promise.

    Raises:
        ExportError: an exporter refused the network.
        RuntimeFailedError: an artifact could not be written or run.
    """
    require_writable(out)
    with step("Folding BatchNorm"):
        folded = fold(model)
    deployed: QuantizedModel | FoldedModel = folded
    if calibration is not None:
        deployed = quantize(equalize(folded, calibration), calibration, recipe)
    exporters: Mapping[Format, Callable[[QuantizedModel | FoldedModel, Path], Artifact]] = {
        "onnx": export_onnx,
        "pte": export_executorch,
    }
    artifacts = tuple(
        exporters[name](deployed, out / artifact_name(deployed, name)) for name in formats
    )
    report = None
    if parity:
        images = calibration or data.embedded_calibration(model.spec, model.preprocessing)
        report = _parity(folded, deployed, [a.path for a in artifacts], images, Tolerances())
    manifests = tuple(write_manifest(artifact, deployed, report) for artifact in artifacts)
    return Deployment(model=deployed, artifacts=artifacts, manifests=manifests, parity=report)


def check_parity(
    artifacts: Sequence[Path],
    source: Path | None = None,
    *,
    samples: int | None = None,
    tolerances: Tolerances | None = None,
) -> ParityReport:
    """Rebuild the network from the artifacts' manifests and hold the artifacts against it.

    Args:
        artifacts: Of one network; each with its manifest beside it.
        source: Images; by default those of the calibration, where they can still be found.
        samples: How many images to compare; None takes all.
        tolerances: What passes.

    Raises:
        ArtifactError: an artifact or manifest is missing, damaged, or of another network; or the
            network cannot be rebuilt as it was.
        DataError: there are no images.
    """
    manifests = [read_manifest(path) for path in artifacts]
    first = manifests[0]
    _require_one_network(artifacts, manifests)
    folded, deployed = rebuild(first)
    images = load_images(folded, source or _calibration_source(first), samples)
    return _parity(folded, deployed, artifacts, images, tolerances or Tolerances(), samples)


def rebuild(manifest: Manifest) -> tuple[FoldedModel, QuantizedModel | FoldedModel]:
    """Build again what a manifest describes: the folded network, and the network as deployed.

    Raises:
        ArtifactError: weights, calibration images or result are not those of the manifest.
    """
    fields = {
        name: getattr(manifest.spec, name)
        for name in manifest.spec.__dataclass_fields__
        if name not in {"family", "weights"}
    }
    model = build(
        manifest.spec.family,
        weights=manifest.spec.weights,
        preprocessing=manifest.preprocessing,
        **fields,
    )
    document = manifest.document
    if model.provenance.sha256 != document["weights"]["sha256"]:
        raise ArtifactError(
            f"The weights at {model.provenance.origin} are not those of the artifact.",
            remedy="Restore the checkpoint, or export the artifact again.",
        )
    folded = fold(model)
    if manifest.recipe is None:
        return folded, folded
    described = document["calibration"]
    calibration = load_images(folded, _calibration_source(manifest), described["count"])
    if calibration.sha256 != described["sha256"]:
        raise ArtifactError(
            f"The calibration images at {described['source']} are not those that the artifact was"
            " made with.",
            remedy="Restore them, or export the artifact again.",
        )
    quantized = quantize(equalize(folded, calibration), calibration, manifest.recipe)
    if quantized.encodings_digest != document["encodings_sha256"]:
        raise ArtifactError(
            "The network could not be rebuilt: its encodings differ from the manifest's.",
            remedy="Use the tool versions that the manifest lists, or export the artifact again.",
        )
    return folded, quantized


def _calibration_source(manifest: Manifest) -> Path | None:
    """Return where the calibration images were; None for those that the package carries."""
    source = manifest.document.get("calibration", {}).get("source", "embedded")
    return None if source == "embedded" else Path(source)


def _require_one_network(artifacts: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    """Raise unless all manifests describe the same network."""
    keys = ("spec", "weights", "precision", "encodings_sha256")
    for path, manifest in zip(artifacts, manifests, strict=True):
        if any(manifest.document.get(k) != manifests[0].document.get(k) for k in keys):
            raise ArtifactError(
                f"{path} and {artifacts[0]} hold different networks and cannot be compared.",
                remedy="Check each with a `mobiledeploy parity` of its own.",
            )


def _parity(
    folded: FoldedModel,
    deployed: QuantizedModel | FoldedModel,
    artifacts: Sequence[Path],
    images: CalibrationSet,
    tolerances: Tolerances,
    samples: int | None = _PARITY_IMAGES,
) -> ParityReport:
    """Run everything on the first `samples` images and compare."""
    inputs = np.concatenate(images.batches)[:samples]
    float_logits = _run(EagerRunner(folded.module).run, inputs, "Running PyTorch")
    integer_logits, logit_step = None, 1.0
    if isinstance(deployed, QuantizedModel):
        reference = IntegerReference(deployed)
        integer_logits = _run(reference.run, inputs, "Running the integer reference")
        logit_step = reference.logit_step
    logits = {}
    for path in artifacts:
        with open_runner(path) as runner:
            logits[path.name] = _run(runner.run, inputs, f"Running {path.name}")
    random = deployed.provenance.source == "random"
    return compare(
        float_logits,
        integer_logits,
        logits,
        step=logit_step,
        tolerances=tolerances,
        data_source=f"{images.source} ({len(inputs)} images)",
        ungated="random weights have no accuracy to lose" if random else "",
    )


def _run(
    run: Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]],
    inputs: NDArray[np.float32],
    description: str,
) -> NDArray[np.float32]:
    """Run a network on all inputs, a few at a time; return (N, classes)."""
    batches = np.array_split(inputs, max(1, len(inputs) // 4))
    tracked = track(batches, description, len(batches))
    return np.concatenate([run({INPUT_NAME: batch})[OUTPUT_NAME] for batch in tracked])
