"""The specification of a network that the user's own code builds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mobiledeploy.models.spec import default_task
from mobiledeploy.network import (
    CUSTOM,
    INPUT_FORMATS,
    Activation,
    ImageSize,
    InputName,
    InputSpec,
    NetworkInfo,
    OutputSpec,
    Preprocessing,
    Task,
    WeightsProvenance,
    describe_size,
    sides_of,
)

Argument = bool | int | float | str | None

# That of the family with the lowest limit: nothing is known about the network.
_EXPECTED_SQNR_DB = 12.0


def is_code(model: str) -> bool:
    """Return whether a model's name is "FILE:CALLABLE" or "package.module:callable"."""
    return ":" in model


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSpec:
    """Everything that is needed to build a network of the user's code again.

    Attributes:
        code: "FILE:CALLABLE" or "package.module:callable"; empty for a module that was given in
            Python, which cannot be built again.
        code_sha256: sha256 of the source file.
        arguments: Keyword arguments of the callable.
        resolution: Size of the input in pixels, the side of a square or (height, width).
        num_classes: Values of the output.
        in_channels: Channels of the input image.
        input: As in `ModelSpec`.
        weights: The path of a checkpoint, "random", or empty for the weights that the callable
            returns.
        seed: Seed of torch while the callable runs, and of random weights.
        title: Name of the network in file names.
        task: What the outputs mean; None is `default_task`.
        activation: What artifacts compute from the logits of the first output.
        outputs: The outputs, if the network has several or another one than `num_classes` logits.
    """

    code: str
    code_sha256: str = ""
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    resolution: ImageSize = 224
    num_classes: int
    in_channels: int = 3
    input: InputName = "float"
    weights: str = ""
    seed: int = 0
    title: str
    task: Task | None = None
    outputs: tuple[OutputSpec, ...] = ()
    activation: Activation = "none"

    @property
    def name(self) -> str:
        """Return the stem of artifact names, for example ``net_create_224-alpha0.5``."""
        tags = [
            f"{self.title}_{describe_size(self.resolution)}",
            *(f"{name}{value}" for name, value in self.arguments.items()),
        ]
        if self.in_channels != 3:
            tags.append(f"{self.in_channels}channels")
        if self.weights == "random":
            tags.append("random" if self.seed == 0 else f"random{self.seed}")
        if self.input != "float":
            tags.append(self.input)
        if self.activation != "none":
            tags.append(self.activation)
        return re.sub(r"[^\w.-]+", "-", "-".join(tags))

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one: (1, C, H, W)."""
        return (1, self.in_channels, *sides_of(self.resolution))

    def network_info(
        self,
        provenance: WeightsProvenance,
        preprocessing: Preprocessing,
        labels: tuple[str, ...] = (),
    ) -> NetworkInfo:
        """Return the `NetworkInfo` of the network that this specification builds."""
        return NetworkInfo(
            name=self.name,
            architecture=CUSTOM,
            input=InputSpec(
                channels=self.in_channels,
                height=sides_of(self.resolution)[0],
                width=sides_of(self.resolution)[1],
                preprocessing=preprocessing,
                format=INPUT_FORMATS[self.input],
            ),
            outputs=self._outputs(labels),
            provenance=provenance,
            source=asdict(self),
            expected_sqnr_db=_EXPECTED_SQNR_DB,
        )

    def _outputs(self, labels: tuple[str, ...]) -> tuple[OutputSpec, ...]:
        plain = OutputSpec(size=self.num_classes, task=self.task or default_task(self.num_classes))
        first, *others = self.outputs or (plain,)
        return (replace(first, labels=labels).with_activation(self.activation), *others)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> CodeSpec:
        """Read a specification from the mapping that `dataclasses.asdict` gives."""
        values = dict(document)
        if isinstance(values.get("resolution"), list):
            values["resolution"] = tuple(values["resolution"])
        values["outputs"] = tuple(
            OutputSpec(**{**each, "dimensions": tuple(each["dimensions"]), "labels": ()})
            for each in values.get("outputs", ())
        )
        return cls(**values)
