"""Does the device compute what this machine computes? A fast wrong network is of no use.

In: outputs of the same inputs, from here and from there. Out: an `OutputCheck`.
An int8 network of mobiledeploy's gives the same bits everywhere; float ones differ by rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.bench.results import OutputCheck
from mobiledeploy.errors import GateError, RuntimeFailedError
from mobiledeploy.metrics import power_ratio_db

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mobiledeploy.bench.results import InstructionCount, Measurement

MIN_SQNR_DB = 60.0


def check_outputs(
    expected: NDArray[np.float32], found: Sequence[NDArray[np.float32]]
) -> OutputCheck:
    """Hold the outputs of every session against this machine's.

    Args:
        expected: (N, classes), from this machine.
        found: The same from each session on the device.

    Raises:
        RuntimeFailedError: there is nothing to compare, or the shapes are not the same.
    """
    shapes = {array.shape for array in found}
    if shapes != {expected.shape} or expected.size == 0:
        raise RuntimeFailedError(
            f"The device returned outputs of shape {sorted(shapes)}; expected {expected.shape}."
        )
    differences = [array.astype(np.float64) - expected for array in found]
    noise = sum(float(np.sum(d**2)) for d in differences)
    signal = len(found) * float(np.sum(expected.astype(np.float64) ** 2))
    return OutputCheck(
        values=len(found) * expected.size,
        differing=sum(int(np.count_nonzero(array != expected)) for array in found),
        sqnr_db=power_ratio_db(signal, noise),
    )


def require_outputs(
    measurements: Sequence[Measurement | InstructionCount], min_sqnr_db: float = MIN_SQNR_DB
) -> None:
    """Raise unless every device's outputs are this machine's, but for float rounding.

    Raises:
        GateError: some are not; the message names each artifact.
    """
    failures = [
        f"{m.artifact}: {m.outputs.differing} of {m.outputs.values} outputs differ, SQNR "
        f"{m.outputs.sqnr_db:.1f} dB; expected at least {min_sqnr_db:g} dB."
        for m in measurements
        if m.outputs is not None and not m.outputs.sqnr_db >= min_sqnr_db
    ]
    if failures:
        raise GateError(
            f"{measurements[0].device} does not compute what this machine computes. "
            + " ".join(failures),
            remedy="`mobiledeploy parity ARTIFACT --device URI` holds it against the network. "
            "Quantized networks of other makers may differ: --min-sqnr sets another limit.",
        )
