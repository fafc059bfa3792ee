"""Keep int8 networks in the cache, so that `parity` after `export` need not quantize again.

In: the stages of a network that was exported. Out: the same stages, for its manifest. An entry is
one file: the sha256 of the rest, then tensors with a description as safetensors.
Invariants: an entry is found by the sha256 of encodings, weights and calibration images and the
recipe of the manifest, and used only if its bytes are those that were written; `reproduce` reads
no entry, it quantizes again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from mobiledeploy.errors import MobileDeployError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.pipeline.stages import fold_all, folded_images
from mobiledeploy.stages import Encoding, FoldedModel, Margin, QuantizedModel, Stages
from mobiledeploy.utils.files import KEEP_NETWORKS_VARIABLE, cache_folder, write_whole
from mobiledeploy.utils.progress import step, warn
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.stages import CalibrationSet, FloatModel, QuantRecipe

ENTRIES = 16
"""The newest entries stay; one of MobileNetV2 has 18 MB."""

_PROGRAM = "program"
_EQUALIZED = "equalized."
_DESCRIPTION = "description"
_DIGEST_BYTES = 32
_SUFFIX = ".network"
_EARLIER_SUFFIXES = (".json", ".safetensors")  # of entries that were two files
_KEY = re.compile("[0-9a-f]{64}")


def remember(stages: Stages) -> None:
    """Keep an int8 network in the cache; a cache that cannot be written is a warning."""
    deployed, equalized = stages.deployed, stages.equalized
    if not isinstance(deployed, QuantizedModel) or equalized is None:
        return
    if os.environ.get(KEEP_NETWORKS_VARIABLE) == "0":
        return
    tensors = {
        _EQUALIZED + name: tensor.contiguous()
        for name, tensor in equalized.module.state_dict().items()
    }
    buffer = BytesIO()
    with quietly():
        torch.export.save(deployed.program, buffer)
    description = {
        "encodings": {name: asdict(encoding) for name, encoding in deployed.encodings.items()},
        "margin": asdict(deployed.margin),
        "layers": dict(deployed.layers),
        "equalization": equalized.equalization,
        "ranges": dict(equalized.ranges),
    }
    texts = {_PROGRAM: buffer.getvalue(), _DESCRIPTION: json.dumps(description).encode()}
    tensors |= {
        name: torch.frombuffer(bytearray(text), dtype=torch.uint8) for name, text in texts.items()
    }
    content = safetensors.torch.save(tensors)
    entry = _entry(
        deployed.encodings_digest,
        deployed.info.provenance.sha256,
        deployed.recipe,
        deployed.calibration_sha256,
    )
    try:
        with write_whole(entry) as part:
            part.write_bytes(hashlib.sha256(content).digest() + content)
        _remove_others(entry)
    except (MobileDeployError, OSError) as error:
        warn(f"The int8 network was not kept in the cache: {error}")


def recall(
    manifest: Manifest, model: FloatModel, calibration: CalibrationSet | None
) -> Stages | None:
    """Return the stages of a manifest's int8 network from the cache, or None if it has none.

    Args:
        manifest: The manifest of an artifact.
        model: The network as built, with the manifest's weights.
        calibration: The manifest's calibration images.
    """
    if manifest.recipe is None or calibration is None:
        return None
    entry = _entry(
        manifest.encodings_sha256, manifest.weights.sha256, manifest.recipe, calibration.sha256
    )
    if not entry.is_file():
        return None
    with step("Reading the int8 network from the cache"):
        try:
            return _read(entry, manifest, model, calibration)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            warn(f"The cached int8 network {entry} is unusable, so it is made again: {error}")
            return None


def _read(
    entry: Path, manifest: Manifest, model: FloatModel, calibration: CalibrationSet
) -> Stages:
    """Return the stages of an entry.

    Raises:
        OSError, ValueError, KeyError, TypeError, RuntimeError: the entry is damaged, or was written
            by another version of torch.
    """
    assert manifest.recipe is not None
    whole = entry.read_bytes()
    digest, content = whole[:_DIGEST_BYTES], whole[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("its bytes have changed")
    tensors = safetensors.torch.load(content)
    description = json.loads(tensors.pop(_DESCRIPTION).numpy().tobytes())
    with quietly():
        program = torch.export.load(BytesIO(tensors.pop(_PROGRAM).numpy().tobytes()))
    weights = {name.removeprefix(_EQUALIZED): tensor for name, tensor in tensors.items()}
    folded = fold_all(model)
    equalized = _equalized(folded, description, weights)
    quantized = QuantizedModel(
        info=model.info,
        program=program,
        encodings={name: Encoding(**each) for name, each in description["encodings"].items()},
        recipe=manifest.recipe,
        calibration_sha256=calibration.sha256,
        calibration_source=calibration.source,
        calibration_count=calibration.count,
        encodings_digest=str(manifest.encodings_sha256),
        margin=Margin(**description["margin"]),
        layers=description["layers"],
    )
    return Stages(
        original=model,
        folded=folded,
        equalized=equalized,
        deployed=quantized,
        calibration=folded_images(calibration, model.info.input),
    )


def _equalized(
    folded: FoldedModel, description: dict[str, Any], weights: dict[str, torch.Tensor]
) -> FoldedModel:
    """Return the equalized network: the folded one, with other weights."""
    if description["equalization"] == "none":
        return folded
    traced = trace(folded)
    traced.load_state_dict(weights)
    ranges = {name: (low, high) for name, (low, high) in description["ranges"].items()}
    return replace(folded, module=traced, equalization=description["equalization"], ranges=ranges)


def _entry(encodings: str, weights: str | None, recipe: QuantRecipe, calibration: str) -> Path:
    """Return the file of an entry.

    Whoever changes the recipe in a manifest gets no network of another recipe.
    """
    identity = json.dumps([encodings, weights, asdict(recipe), calibration])
    key = hashlib.sha256(identity.encode()).hexdigest()
    return cache_folder() / "networks" / f"{key}{_SUFFIX}"


def _remove_others(kept: Path) -> None:
    """Remove all but the newest entries, and those in an earlier form, which nothing reads.

    `kept` is one of the newest, even if the clock has gone back.
    """
    ages = []
    for entry in kept.parent.glob(f"*{_SUFFIX}"):
        with suppress(FileNotFoundError):  # another process has just removed it
            ages.append((entry.stat().st_mtime, entry))
    others = [entry for _, entry in sorted(ages) if entry != kept]
    earlier_form = [
        path
        for path in kept.parent.iterdir()
        if path.suffix in _EARLIER_SUFFIXES and _KEY.fullmatch(path.stem)
    ]
    for entry in (*others[: -(ENTRIES - 1)], *earlier_form):
        entry.unlink(missing_ok=True)
