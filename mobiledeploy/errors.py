"""The exceptions of mobiledeploy.

    MobileDeployError            exit code
    ├── GateError                1   a gate failed: parity, int8 coverage, regression
    ├── UsageError               2   options or arguments that are unknown or contradictory
    ├── LoadError                3   something could not be loaded
    │   ├── WeightsError             a checkpoint
    │   ├── DataError                images, labels, a calibration set
    │   └── ArtifactError            an artifact or its manifest
    │       └── OtherInputsError         weights or images differ from those of the manifest
    └── RuntimeFailedError       4   an exporter, a runtime, a device or the file system failed
        └── ExportError              an exporter rejected the network

The message says what failed, what was found and what was expected. ``remedy`` says how to fix it.
The command line prints both and exits with ``exit_code``. Passwords in URLs are masked in both.
"""

import re

# user and password, and for HTTP also a lone user, which may be a token
_CREDENTIALS = re.compile(r"((?<=://)[^/@\s]*:|(?<=http://)|(?<=https://))[^/\s]*(?=@)")


class MobileDeployError(Exception):
    """Base class of all exceptions of mobiledeploy.

    Args:
        message: What failed, what was found and what was expected, in one or two sentences.
        remedy: How to fix it, in the imperative; empty if there is no advice.
    """

    exit_code = 4

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = without_credentials(message)
        self.remedy = without_credentials(remedy)
        super().__init__(self.message)


class GateError(MobileDeployError):
    """A gate failed: something was compared, and it did not meet a limit."""

    exit_code = 1


class UsageError(MobileDeployError):
    """The request is contradictory or names something that does not exist."""

    exit_code = 2


class LoadError(MobileDeployError):
    """Something that the request names could not be loaded."""

    exit_code = 3


class WeightsError(LoadError):
    """A checkpoint could not be found, verified, read or mapped to the model."""


class DataError(LoadError):
    """Images, labels or a calibration set could not be read."""


class ArtifactError(LoadError):
    """An artifact or its manifest could not be read, or they do not belong together."""


class OtherInputsError(ArtifactError):
    """The weights or calibration images found are not those of the artifact."""


class RuntimeFailedError(MobileDeployError):
    """An exporter, a runtime, a device or the file system failed."""

    exit_code = 4


class ExportError(RuntimeFailedError):
    """An exporter rejected the network, or its output is not what the contract promises."""


def without_credentials(text: str) -> str:
    """Return text in which user and password of every URL are masked.

    >>> without_credentials("http://user:secret@host/path")
    'http://***@host/path'
    """
    return _CREDENTIALS.sub("***", text)
