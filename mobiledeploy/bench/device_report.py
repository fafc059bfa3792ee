"""The JSON document of `mobiledeploy device report`.

It names no serial number, user, host or address: of the device's URI only its kind, and of the
artifacts only their file names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from mobiledeploy.bench.results import Measurement, OutputCheck
from mobiledeploy.devices.cores import Cluster, Cores, clusters
from mobiledeploy.utils.json_model import JsonModel

if TYPE_CHECKING:
    from mobiledeploy.devices.host import Host


class ReportedCluster(JsonModel):
    """Cores with the same highest frequency.

    Attributes:
        cores: Their numbers.
        max_mhz: That frequency.
    """

    cores: tuple[int, ...]
    max_mhz: float

    @classmethod
    def of(cls, cluster: Cluster) -> Self:
        """Return a cluster as a part of the document."""
        return cls(cores=cluster.cores, max_mhz=cluster.max_mhz)


class ReportedDevice(JsonModel):
    """The device, without its name.

    Attributes:
        kind: Of its URI.
        model: The phone's maker, model and chip, or the processor's name.
        architecture: The kernel's name for it.
        os: The system's name and version.
        cores: Logical cores that a process may use.
        clusters: Cores by their highest frequency (cpufreq), the slowest first; empty if unknown.
        features: Int8 instructions; null if the system does not report them.
        emulated: Whether the processor is emulated by another one.
        conditions: Temperature, frequencies, governor and throttling before the first run.
    """

    kind: Literal["ssh", "adb", "exec"]
    model: str
    architecture: str
    os: str
    cores: int
    clusters: tuple[ReportedCluster, ...]
    features: tuple[str, ...] | None
    emulated: bool
    conditions: Mapping[str, Any]

    @classmethod
    def of(cls, host: Host) -> Self:
        """Return the description of a machine."""
        kind: Any = host.uri.partition(":")[0]
        return cls(
            kind=kind,
            model=host.model,
            architecture=host.architecture,
            os=host.os,
            cores=host.cores,
            clusters=tuple(ReportedCluster.of(each) for each in clusters(host.core_mhz)),
            features=None if host.features is None else tuple(sorted(host.features)),
            emulated=host.emulated,
            conditions=host.conditions,
        )


class ReportedRunner(JsonModel):
    """The native runner on the device.

    Attributes:
        version: Of its sources and runtimes.
        sha256: sha256 of its list of sha256 on the device, which stands for all files.
        protocol: Version of the protocol.
        runtimes: Names and versions of the runtimes that the self-test has loaded.
    """

    version: str
    sha256: str
    protocol: int
    runtimes: tuple[str, ...]


class ReportedRun(JsonModel):
    """The times of one artifact on one group of cores, and its outputs.

    Attributes:
        artifact: Its file name.
        artifact_sha256: sha256 of the file.
        runtime: Name and version of the runtime.
        cores: "big", "little" or "all".
        runs: Inferences that were timed, on one thread.
        median_ms: Latency, median.
        p90_ms: Its 90th percentile.
        iqr_ms: Its interquartile range.
        load_ms: From opening the file until the network is ready.
        first_ms: The first inference.
        peak_memory_bytes: Peak resident memory that loading and running added.
        outputs: The outputs compared with those of the machine that wrote the report.
        warnings: Reasons to doubt the figures.
        conditions: What the device's speed depended on, before and after each session.
    """

    artifact: str
    artifact_sha256: str
    runtime: str
    cores: Cores
    runs: int
    median_ms: float
    p90_ms: float
    iqr_ms: float
    load_ms: float
    first_ms: float
    peak_memory_bytes: int | None
    outputs: OutputCheck
    warnings: tuple[str, ...]
    conditions: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, measured: Measurement, cores: Cores) -> Self:
        """Return what a report says of a measurement."""
        assert measured.outputs is not None, "the native runner returns outputs"
        return cls(
            artifact=measured.name,
            artifact_sha256=measured.artifact_sha256,
            runtime=measured.runtime,
            cores=cores,
            runs=len(measured.times_ms),
            median_ms=measured.median_ms,
            p90_ms=measured.p90_ms,
            iqr_ms=measured.iqr_ms,
            load_ms=measured.load_ms,
            first_ms=measured.first_ms,
            peak_memory_bytes=measured.peak_memory_bytes,
            outputs=measured.outputs,
            warnings=measured.warnings,
            conditions=measured.conditions,
        )


class ReportedFailure(JsonModel):
    """Why a run ended early.

    Attributes:
        error: Class of the error.
        message: Its text, without names, addresses and the output of other programs.
    """

    error: str
    message: str


class DeviceReport(JsonModel):
    """What `mobiledeploy device report` writes.

    Attributes:
        created: The date, UTC.
        mobiledeploy: Version of mobiledeploy.
        device: The device; null if it did not answer.
        runner: The native runner; null if its self-test failed.
        runs: Each artifact on each group of cores.
        failure: Why the report is incomplete; null if it is complete. It came up after the last
            of the other fields that is filled in.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["mobiledeploy.device.report"] = "mobiledeploy.device.report"
    created: str
    mobiledeploy: str
    device: ReportedDevice | None = None
    runner: ReportedRunner | None = None
    runs: tuple[ReportedRun, ...] = ()
    failure: ReportedFailure | None = None
