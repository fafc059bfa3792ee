"""First stage: build a float network and load its weights, and load images for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.artifact.manifest import Manifest
from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.checkpoints.resolve import Resolution, resolve
from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.data.labels import IMAGENET, load_labels
from mobiledeploy.data.preprocess import (
    check_preprocessing,
    complete_preprocessing,
    default_preprocessing,
)
from mobiledeploy.errors import UsageError
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.code_spec import is_code
from mobiledeploy.models.config import read_config, with_head
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import (
    FAMILIES,
    ArchitectureOptions,
    ModelSpec,
    default_task,
    family_named,
)
from mobiledeploy.models.validate import validate
from mobiledeploy.network import OutputSpec, Preprocessing
from mobiledeploy.pipeline.build_code import build_code
from mobiledeploy.pipeline.code_outputs import require_activation
from mobiledeploy.stages import CalibrationSet, FloatModel, FoldedModel, QuantizedModel
from mobiledeploy.utils.arguments import (
    FROM_MODULE,
    StrPath,
    as_path,
    require_fields,
    require_instance,
)
from mobiledeploy.utils.memory import require_memory
from mobiledeploy.utils.progress import step, warn
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping


_IMAGENET_CLASSES = 1000
_NAMES_UNKNOWN = (
    "The class names are unknown: 1000 outputs need not be ImageNet's classes. If they are, pass"
    f" --labels {IMAGENET}."
)
_ARTICLES = {"regression": "a regression", "embedding": "an embedding"}


@on_one_thread
def build(
    model: str | None = None,
    *,
    config: StrPath | None = None,
    weights: StrPath | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    labels: StrPath | None = None,
    **fields: Any,
) -> FloatModel:
    """Build a network and load its weights.

    Args:
        model: "v1", "v2", "v3-large" (or "v3"), "v3-small", "v4-conv-small", "v4-conv-medium" or
            "v4-conv-large", optional if `config` names the family; or code that returns the
            network, "FILE:CALLABLE" or "package.module:callable", which is imported and called
            (see `build_code`).
        config: A YAML file with fields of `ModelSpec`.
        weights: "imagenet" (the default), "random", or the path of a checkpoint. Width and number
            of classes are read from the checkpoint's tensors.
        preprocessing: Replaces the preprocessing that the weights imply. A mapping replaces only
            the fields that it names.
        labels: A text file with one class name per line, or "imagenet" for the names of
            ImageNet-1k. Weights that are known to be ImageNet's have these by default.
        **fields: Other fields of `ModelSpec`. They override those of `config`. No explicit field
            may contradict the weights. For code: `arguments`, `resolution`, `in_channels`, `seed`,
            `task`, `outputs`, `activation`.

    Raises:
        UsageError: there is no such family, fields contradict each other, or the preprocessing is
            not valid for the network.
        LoadError: a file cannot be read.
        WeightsError: the weights cannot be downloaded, read or mapped onto the network.
    """
    if model is not None:
        remedy = "Name a family or code; `from_module` takes a PyTorch module."
        require_instance(model, str, "model", remedy)
    if weights is not None and not isinstance(weights, str):  # a str may be a name or an address
        weights = str(as_path(weights, "weights"))
    file = None if config is None else as_path(config, "config")
    names_file = None if labels is None else as_path(labels, "labels")
    if model is not None and is_code(model):
        _refuse_for_code(file, fields)
        return build_code(
            model, weights=weights, preprocessing=preprocessing, labels=names_file, **fields
        )
    given = with_head(_explicit_fields(model, file) | fields)
    if isinstance(given.get("architecture"), dict):
        require_fields(given["architecture"], ArchitectureOptions, "architecture")
        given["architecture"] = ArchitectureOptions(**given["architecture"])
    if weights is not None:
        given["weights"] = weights
    require_fields(given, ModelSpec, "ModelSpec")
    requested = ModelSpec(**given)
    validate(requested)
    require_activation(OutputSpec(size=requested.num_classes), requested.activation)
    with step("Building the network"):
        resolved = resolve(requested, set(given), create_on_meta)
        complete = _complete_preprocessing(preprocessing, resolved)
        _require_memory(resolved.spec)
        module = create(resolved.spec)
        if resolved.spec.weights == "random":
            randomize_batch_norm(module, resolved.spec.seed)
        provenance = load_weights(module, resolved.spec)
    names, notes = _class_names(resolved, names_file)
    notes += _about_task(resolved.spec)
    return FloatModel(
        info=resolved.spec.network_info(
            replace(provenance, notes=(*notes, *provenance.notes)), complete, names
        ),
        module=module.eval(),
    )


def _require_memory(spec: ModelSpec) -> None:
    """Raise RuntimeFailedError unless the weights fit into memory."""
    tensors = create_on_meta(spec).state_dict().values()
    require_memory(sum(t.numel() * t.element_size() for t in tensors), "The weights")


def _refuse_for_code(config: Path | None, fields: Mapping[str, Any]) -> None:
    """Raise UsageError for what only families have."""
    allowed = {"arguments", "resolution", "in_channels", "input", "seed"}
    allowed |= {"task", "outputs", "activation"}
    foreign = [*(["config"] if config else []), *sorted(set(fields) - allowed)]
    if foreign:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise UsageError(
            f"{options} cannot change a network from code.",
            remedy="Pass arguments to the code: --model-arg NAME=VALUE.",
        )


def _class_names(
    resolved: Resolution, file: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class names and the notes about them.

    Names in the user's file come first, then those of the checkpoint, then ImageNet's if the
    weights are known to be ImageNet's: that there are 1000 outputs does not say so.
    """
    names, notes = resolved.labels, resolved.notes
    classes = resolved.spec.num_classes
    if len(names) not in (0, classes):
        notes += (f"The checkpoint has {len(names)} labels for {classes} classes: ignored.",)
        names = ()
    if file is not None:
        return load_labels(file, classes), notes
    if names or classes != _IMAGENET_CLASSES or resolved.spec.weights == "random":
        return names, notes
    if resolved.is_imagenet:
        return load_labels(Path(IMAGENET), classes), notes
    if resolved.spec.task in (None, "classes"):
        notes += (_NAMES_UNKNOWN,)
    return names, notes


def _about_task(spec: ModelSpec) -> tuple[str, ...]:
    """Return a note if the number of outputs decides what they mean, and they are no classes."""
    task = default_task(spec.num_classes)
    if spec.task is not None or task == "classes":
        return ()
    found = "one output" if spec.num_classes else "no classifier"
    return (f"The network has {found}: it is judged as {_ARTICLES[task]} (--task).",)


def _explicit_fields(model: str | None, config: Path | None) -> dict[str, Any]:
    """Return the fields of `ModelSpec` that the model's name and the file set."""
    if config is not None:
        return read_config(config, model)
    if model is None:
        raise UsageError(
            "No model was named.", remedy=f"Name one of {', '.join(FAMILIES)}, or pass --config."
        )
    return {"family": family_named(model)}


def _complete_preprocessing(
    given: Preprocessing | Mapping[str, Any] | None, resolved: Resolution
) -> Preprocessing:
    """Return the given preprocessing, completed by what the weights imply.

    It is checked here even if no images will be loaded, because artifacts carry it to the phone.
    """
    implied = resolved.preprocessing or default_preprocessing(resolved.spec.in_channels)
    whole = complete_preprocessing(given, implied)
    check_preprocessing(whole, resolved.spec.in_channels)
    return whole


def load_images(
    model: FloatModel | FoldedModel | QuantizedModel | Manifest,
    source: StrPath | None,
    samples: int | None = None,
    *,
    for_calibration: bool = False,
) -> CalibrationSet:
    """Load images and preprocess them for a network.

    Args:
        model: The network, or a manifest of it.
        source: A folder, an `.npz` or a list of files; None for the bundled images.
        samples: Number of images; None for all.
        for_calibration: Whether they are for calibration; see `load_calibration`.

    Raises:
        DataError: there are no images, too few, too many for the memory, or one cannot be read.
    """
    stages = (FloatModel, FoldedModel, QuantizedModel, Manifest)
    require_instance(model, stages, "model", FROM_MODULE)
    if source is None:
        return embedded_calibration(model.info, samples)
    path = as_path(source, "source")
    images = load_calibration(path, model.info, samples=samples, for_calibration=for_calibration)
    for note in images.notes:
        warn(note)
    return images
