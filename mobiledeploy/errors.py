"""Everything that mobiledeploy raises on purpose.

    MobileDeployError            exit code
    ├── GateError                1   a gate said no: parity, coverage, regression
    ├── UsageError               2   flags or arguments that contradict one another
    ├── LoadError                3   something could not be loaded
    │   ├── WeightsError             a checkpoint
    │   ├── DataError                images, labels, a calibration set
    │   └── ArtifactError            an artifact or its manifest
    │       └── OtherInputsError         other weights or images than it was made from
    └── RuntimeFailedError       4   an exporter, a runtime or a device failed
        └── ExportError              an exporter refused the network

An error's text says what failed, what was found and what was expected; its ``remedy`` says how to
mend it. The command line prints both and exits with ``exit_code``.
"""


class MobileDeployError(Exception):
    """Base of all errors that users are meant to see.

    Args:
        message: What failed, what was found and what was expected: one or two sentences.
        remedy: How to mend it, in the imperative; may be empty where nothing can be advised.
    """

    exit_code = 4

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class GateError(MobileDeployError):
    """A check compared something and the answer was no."""

    exit_code = 1


class UsageError(MobileDeployError):
    """The request contradicts itself or names something that does not exist."""

    exit_code = 2


class LoadError(MobileDeployError):
    """Something that the request named could not be loaded."""

    exit_code = 3


class WeightsError(LoadError):
    """A checkpoint could not be found, verified, read or mapped onto the model."""


class DataError(LoadError):
    """Images, labels or a calibration set could not be read."""


class ArtifactError(LoadError):
    """An artifact or its manifest could not be read, or the two do not belong together."""


class OtherInputsError(ArtifactError):
    """Weights or calibration images were found, and they are not those of the artifact."""


class RuntimeFailedError(MobileDeployError):
    """An exporter, a runtime or a device failed."""

    exit_code = 4


class ExportError(RuntimeFailedError):
    """An exporter refused the network, or its output broke a promise of ours."""
