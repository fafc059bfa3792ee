"""Hold artifacts against the network that their manifests describe."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.devices.open import run_artifact
from mobiledeploy.errors import ArtifactError
from mobiledeploy.network import EMBEDDED
from mobiledeploy.parity.baseline import regressions, require_comparable
from mobiledeploy.parity.report.json_report import KIND, SCHEMA, to_document
from mobiledeploy.parity.run_ladder import run_ladder
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.pipeline.build import load_images
from mobiledeploy.pipeline.rebuild import rebuild
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.devices.open import Device
    from mobiledeploy.network import Stages
    from mobiledeploy.parity.types import ParityReport


def check_parity(
    artifacts: Sequence[Path],
    source: Path | None = None,
    *,
    samples: int | None = None,
    min_sqnr_db: float | None = None,
    min_top1_agreement: float | None = None,
    weights: Path | None = None,
    calib_data: Path | None = None,
    layers: bool = False,
    worst: int = 0,
    baseline: Any = None,
    device: Device | None = None,
) -> ParityReport:
    """Rebuild the network from the artifacts' manifests and climb the ladder to the artifacts.

    Args:
        artifacts: Of one network; each with its manifest beside it.
        source: Images; by default those of the calibration, where they can still be found.
        samples: How many images to compare; None takes all.
        min_sqnr_db: Against float. By default, of an int8 network, what its family reaches; what is
            given holds for every artifact, of float networks and of random weights, too.
        min_top1_agreement: Likewise.
        weights: The checkpoint, where it is no longer where the manifest says.
        calib_data: The calibration images, likewise.
        layers: Also say what quantization does to each layer.
        worst: Also show so many images on which the last rung is farthest from float.
        baseline: An earlier report as a document: what is worse now goes into the report.
        device: Runs the artifacts too: the last rungs. From `open_device`, entered.

    Raises:
        ArtifactError: an artifact or manifest is missing, damaged, or of another network; or the
            network cannot be rebuilt as it was.
        DataError: there are no images, or the baseline is of another network or other images.
        RuntimeFailedError: a runtime or the device failed.
    """
    with step("Reading manifests"):
        manifests = [read_manifest(path) for path in artifacts]
        _require_one_network(artifacts, manifests)
        for path, manifest in zip(artifacts, manifests, strict=True):
            require_own_description(path, manifest)
    first = manifests[0]
    if device is not None:
        with step(f"Asking {device.uri}"):  # before the work of minutes, not after it
            place = device.host.label
    if baseline is not None:
        require_comparable(baseline, _of_the_report(first))
    # likewise before it
    given = None if source is None else load_images(first, source, samples)
    networks = rebuild(first, weights=weights, calib_data=calib_data)
    images = given or load_images(first, _calibrated_with(networks), samples)
    asked = {"min_sqnr_db": min_sqnr_db, "min_top1_agreement": min_top1_agreement}
    demanded = {name: limit for name, limit in asked.items() if limit is not None}
    tolerances = replace(default_tolerances(first.info), demanded=demanded, **demanded)
    report = run_ladder(
        networks,
        artifacts,
        images,
        tolerances=tolerances,
        layers=layers,
        worst=worst,
        on_device=None if device is None else partial(run_artifact, device),
    )
    if device is not None:
        report = replace(report, device=place)
    if baseline is None:
        return report
    return replace(report, regressions=regressions(baseline, to_document(report)))


def _of_the_report(manifest: Manifest) -> dict[str, object]:
    """Return what a report of these artifacts will say of itself."""
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "network": manifest.info.name,
        "precision": manifest.document["precision"],
    }


def _calibrated_with(networks: Stages) -> Path | None:
    """Return where the calibration images are; None for those that the package carries."""
    source = EMBEDDED if networks.calibration is None else networks.calibration.source
    return None if source == EMBEDDED else Path(source)


def require_own_description(path: Path, manifest: Manifest) -> None:
    """Raise unless an artifact says of itself what its manifest says of it.

    Preprocessing is what an app takes from the artifact and a rebuilt network from the manifest: if
    the two differ, one of them feeds the network other images.

    Raises:
        ArtifactError: naming every field that differs.
    """
    with open_runner(path) as runner:
        found = _described(runner.metadata)
    if not found:
        raise ArtifactError(
            f"{path} does not say what it is: it carries no mobiledeploy metadata.",
            remedy="Export it with `mobiledeploy export`.",
        )
    expected = _expected(manifest)
    different = [
        f"{name} is {found.get(name)!r} in the artifact and {value!r} in the manifest"
        for name, value in expected.items()
        if found.get(name) != value
    ]
    if different:
        raise ArtifactError(
            f"{path} and its manifest do not describe one network: {'; '.join(different)}.",
            remedy="Restore the two that belong together, or export the artifact again.",
        )


def _described(metadata: Mapping[str, object]) -> dict[str, object]:
    """Return what an artifact says of itself, one level deep: {"input.mean": [...], ...}."""
    flat: dict[str, object] = {}
    for key, value in metadata.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": content for inner, content in value.items()}
        else:
            flat[key] = value
    return flat


def _expected(manifest: Manifest) -> dict[str, object]:
    """Return what an artifact has to say of itself, from its manifest (see `export.metadata`)."""
    info, document = manifest.info, manifest.document
    return {
        "name": info.name,
        "precision": document["precision"],
        "input.channels": info.input.channels,
        "input.center_crop": info.input.height,
        "input.resize_short_side": info.input.resize_short_side,
        "input.interpolation": info.preprocessing.interpolation,
        "input.mean": list(info.preprocessing.mean),
        "input.std": list(info.preprocessing.std),
        "output.classes": info.classes,
        "weights.sha256": document["weights"]["sha256"],
        "encodings_sha256": document.get("encodings_sha256", ""),
    }


def _require_one_network(artifacts: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    """Raise unless all manifests describe the same network."""
    expected = _identity(manifests[0])
    for path, manifest in zip(artifacts, manifests, strict=True):
        different = [k for k, value in _identity(manifest).items() if value != expected[k]]
        if different:
            raise ArtifactError(
                f"{path} and {artifacts[0]} hold different networks and cannot be compared: their"
                f" manifests differ in {', '.join(different)}.",
                remedy="Check each with a `mobiledeploy parity` of its own; `mobiledeploy diff`"
                " shows how they differ.",
            )


def _identity(manifest: Manifest) -> dict[str, object]:
    """Return what makes the network, wherever its weights lay."""
    document = manifest.document
    described = document["weights"]
    return {
        "spec": replace(manifest.spec, weights=""),
        "weights": [described[name] for name in ("source", "sha256", "dialect")],
        "precision": document["precision"],
        "encodings_sha256": document.get("encodings_sha256"),
    }
