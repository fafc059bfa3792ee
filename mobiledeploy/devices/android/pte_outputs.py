"""The types and shapes of a `.pte`'s outputs, which raw files of outputs do not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mobiledeploy.devices.agent.runtimes import executorch_bindings
from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

# executorch/runtime/core/portable_type/scalar_type.h
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}


class OutputTensor(NamedTuple):
    """An output: its NumPy datatype, and its shape with the batch."""

    dtype: str
    shape: tuple[int, ...]


def output_tensors(path: Path) -> tuple[OutputTensor, ...]:
    """Return the outputs of a `.pte` in order.

    Raises:
        ArtifactError: ExecuTorch rejects the file, or an output is no tensor of numbers.
    """
    try:
        program = executorch_bindings()._load_program(str(path))  # noqa: SLF001 - the only access
        meta = program.load_method("forward").method_meta()
        tensors = [meta.output_tensor_meta(number) for number in range(meta.num_outputs())]
        return tuple(OutputTensor(_DTYPES[each.dtype()], tuple(each.sizes())) for each in tensors)
    except (RuntimeError, KeyError) as error:
        raise ArtifactError(
            f"The types of the outputs of {path} cannot be read: {error}.",
            remedy="Export the model again: the file is damaged, or it returns something else than"
            " numbers.",
        ) from error
