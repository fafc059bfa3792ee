"""Compare a device's outputs with this machine's, so that a fast but wrong network is noticed.

The int8 networks of mobiledeploy have equal outputs everywhere; float networks differ by rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.bench.results import OutputCheck
from mobiledeploy.errors import GateError, RuntimeFailedError
from mobiledeploy.metrics import power_ratio_db, signal_power

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mobiledeploy.bench.results import InstructionCount, Measurement
    from mobiledeploy.devices.request import Outputs

MIN_SQNR_DB = 60.0


def check_outputs(expected: Outputs, found: Sequence[Outputs]) -> OutputCheck:
    """Compare the outputs of every session with this machine's.

    Integers (codes, classes) have an SQNR of their own: beside classes up to 1000, wrong
    probabilities would not show. The lower SQNR is returned.

    Args:
        expected: This machine's outputs, (N, ...) each.
        found: The device's outputs for the same inputs, of each session.

    Raises:
        RuntimeFailedError: There are no outputs, or their types or shapes differ.
    """
    wanted = _describe(expected)
    others = sorted({_describe(outputs) for outputs in found} - {wanted})
    if others or not found or not any(output.size for output in expected):
        raise RuntimeFailedError(
            f"The device returned outputs {'; '.join(others) or wanted}, of {len(found)} sessions;"
            f" expected {wanted}.",
            remedy="Update the runtime on the device.",
        )
    values = differing = 0
    sqnr_db = []
    for kinds in ("f", "iub"):
        reference = _rows(expected, kinds)
        candidates = [_rows(outputs, kinds) for outputs in found]
        if reference.size:
            noise = sum(float(np.sum((each - reference) ** 2)) for each in candidates)
            values += len(found) * reference.size
            differing += sum(int(np.count_nonzero(each != reference)) for each in candidates)
            sqnr_db.append(power_ratio_db(len(found) * signal_power(reference), noise))
    # min() would drop a NaN that is not the first
    return OutputCheck(values=values, differing=differing, sqnr_db=float(np.min(sqnr_db)))


def _describe(outputs: Outputs) -> str:
    """Return the types and shapes of outputs."""
    return ", ".join(f"{output.dtype} {output.shape}" for output in outputs) or "none"


def _rows(outputs: Outputs, kinds: str) -> NDArray[np.float64]:
    """Return the outputs of some kinds of types, one behind the other, (N, values)."""
    chosen = [output for output in outputs if output.dtype.kind in kinds]
    empty = np.zeros((len(outputs[0]), 0))
    rows = [output.reshape(len(output), -1).astype(np.float64) for output in chosen]
    return np.concatenate([empty, *rows], axis=1)


def require_outputs(
    measurements: Sequence[Measurement | InstructionCount], min_sqnr_db: float = MIN_SQNR_DB
) -> None:
    """Raise if a device's outputs differ from this machine's by more than float rounding.

    Args:
        measurements: Those without an output check pass.
        min_sqnr_db: The smallest SQNR that passes.

    Raises:
        GateError: The message names each artifact.
    """
    failures = [
        f"{m.artifact}: {m.outputs.differing} of {m.outputs.values} outputs differ, SQNR "
        f"{m.outputs.sqnr_db:.1f} dB; expected at least {min_sqnr_db:g} dB."
        for m in measurements
        if m.outputs is not None and not m.outputs.sqnr_db >= min_sqnr_db
    ]
    if failures:
        raise GateError(
            f"The outputs of {measurements[0].device} differ from this machine's. "
            + " ".join(failures),
            remedy="Compare it with the network: `mobiledeploy parity ARTIFACT --device URI`. For "
            "quantized networks of other exporters, lower the limit with --min-sqnr.",
        )
