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

MIN_SQNR_DB = 60.0


def check_outputs(
    expected: NDArray[np.float32], found: Sequence[NDArray[np.float32]]
) -> OutputCheck:
    """Compare the outputs of every session with this machine's.

    Args:
        expected: This machine's outputs, (N, classes).
        found: The device's outputs for the same inputs, one array per session.

    Raises:
        RuntimeFailedError: There are no outputs, or their shapes differ.
    """
    shapes = {array.shape for array in found}
    if shapes != {expected.shape} or expected.size == 0:
        raise RuntimeFailedError(
            f"The device returned outputs of shape {sorted(shapes)}; expected {expected.shape}.",
            remedy="Update the runtime on the device.",
        )
    differences = [array.astype(np.float64) - expected for array in found]
    noise = sum(float(np.sum(d**2)) for d in differences)
    signal = len(found) * signal_power(expected)
    return OutputCheck(
        values=len(found) * expected.size,
        differing=sum(int(np.count_nonzero(array != expected)) for array in found),
        sqnr_db=power_ratio_db(signal, noise),
    )


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
