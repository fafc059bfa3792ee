"""The JSON documents of `mobiledeploy bench`: what they hold, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, computed_field, model_validator

from mobiledeploy.bench.results import InstructionCount, Measurement
from mobiledeploy.bench.stats import Ratio, paired_ratio
from mobiledeploy.errors import ArtifactError
from mobiledeploy.utils.files import require_regular
from mobiledeploy.utils.json_model import JsonModel, explain_invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.devices.host import Host

_REWRITE = "Write it again with `mobiledeploy bench ARTIFACT... --json PATH`."


class Machine(JsonModel):
    """The machine that a result was measured on; see `devices.host.Host`."""

    architecture: str
    model: str
    features: tuple[str, ...] | None = None
    cores: int = 0
    uri: str = "local"
    os: str = ""
    emulated: bool = False
    runtimes: Mapping[str, str | None] = Field(default_factory=dict)
    conditions: Mapping[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, host: Host) -> Self:
        """Return the description of a device's machine."""
        return cls(
            architecture=host.architecture,
            model=host.model,
            features=None if host.features is None else tuple(sorted(host.features)),
            cores=host.cores,
            uri=host.uri,
            os=host.os,
            emulated=host.emulated,
            runtimes=host.runtimes,
            conditions=host.conditions,
        )


class Verdict(JsonModel):
    """One artifact compared with its result in the baseline.

    Attributes:
        artifact: File name.
        metric: What was compared.
        ratio: New median / old median; 1.05 is 5% slower.
        ratio_low: The smallest ratio that both 95% intervals allow.
        reference: The artifact that both were measured against; "" if the metric itself was
            compared.
        passed: Whether `ratio_low` is at most 1 + the allowed regression.
    """

    artifact: str
    metric: Literal["time", "instructions"]
    ratio: float
    ratio_low: float
    reference: str
    passed: bool


class BaselineComparison(JsonModel):
    """A result compared with a baseline.

    Attributes:
        verdicts: The artifacts that both have, in the order of the result.
        missing: File names that only the baseline has. They fail the gate.
        added: File names that only the result has. They are not compared.
        max_regress: The allowed regression; 0.05 is 5%.
    """

    verdicts: tuple[Verdict, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    max_regress: float

    @computed_field  # type: ignore[prop-decorator]  # mypy has no decorated properties
    @property
    def passed(self) -> bool:
        """Return whether no artifact has regressed and none is missing."""
        return not self.missing and all(verdict.passed for verdict in self.verdicts)


class _BenchResult(JsonModel):
    """What the documents of `bench` have in common.

    Attributes:
        host: The machine.
        notes: What limits the meaning of the figures, one sentence each.
        baseline: The comparison with `--baseline`; None without one.
    """

    schema_version: Literal[2] = Field(default=2, alias="schema")
    host: Machine
    notes: tuple[str, ...] = ()
    baseline: BaselineComparison | None = None


class TimedArtifact(Measurement):
    """A measurement, compared with the first one of its document.

    Attributes:
        ratio_to_first: Latency as a multiple of the first artifact's, paired by round.
    """

    ratio_to_first: Ratio


class TimesResult(_BenchResult):
    """What `mobiledeploy bench --json` writes: raw times, and the figures derived from them."""

    kind: Literal["mobiledeploy.bench"] = "mobiledeploy.bench"
    measurements: tuple[TimedArtifact, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _require_equal_rounds(self) -> Self:
        rounds = sorted({len(measurement.times_ms) for measurement in self.measurements})
        if len(rounds) > 1:  # every round has one time of each artifact
            raise ValueError(
                f"`times_ms` has {rounds[0]} entries in one measurement and {rounds[-1]} in another"
            )
        return self


class CountedArtifact(InstructionCount):
    """An instruction count, compared with the first one of its document.

    Attributes:
        ratio_to_first: Median instructions as a multiple of the first artifact's.
    """

    ratio_to_first: float


class InstructionsResult(_BenchResult):
    """What `mobiledeploy bench --count-instructions --json` writes."""

    kind: Literal["mobiledeploy.bench.instructions"] = "mobiledeploy.bench.instructions"
    measurements: tuple[CountedArtifact, ...] = Field(min_length=1)


Result = TypeVar("Result", bound=_BenchResult)


def to_document(
    measurements: Sequence[Measurement | InstructionCount], host: Host, notes: Sequence[str] = ()
) -> TimesResult | InstructionsResult:
    """Return the document for the measurements or the counts of one run."""
    machine = Machine.of(host)
    times = [m for m in measurements if isinstance(m, Measurement)]
    if times:
        timed = tuple(
            TimedArtifact(**dict(m), ratio_to_first=paired_ratio(times[0], m)) for m in times
        )
        return TimesResult(host=machine, notes=tuple(notes), measurements=timed)
    counts = [m for m in measurements if isinstance(m, InstructionCount)]
    first = counts[0].median_instructions
    counted = tuple(
        CountedArtifact(**dict(c), ratio_to_first=c.median_instructions / first) for c in counts
    )
    return InstructionsResult(host=machine, notes=tuple(notes), measurements=counted)


def read_result(path: Path, kind: type[Result]) -> Result:
    """Read a document of `mobiledeploy bench --json`.

    Args:
        path: The file.
        kind: `TimesResult`, or `InstructionsResult` for one of `bench --count-instructions`.

    Raises:
        ArtifactError: There is no such file, it is another document, or it is damaged.
    """
    require_regular(path, ArtifactError)
    try:
        document = json.loads(path.read_text())
        found = document["kind"]
    except OSError as error:
        raise ArtifactError(
            f"Could not read {path}: {error.strerror}.", remedy="Check the path."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not a result of `mobiledeploy bench`.",
            remedy="Pass a JSON document: `mobiledeploy bench ARTIFACT... --json PATH` writes it.",
        ) from error
    kinds = [each.model_fields["kind"].default for each in (TimesResult, InstructionsResult)]
    expected = kind.model_fields["kind"].default
    if found not in kinds:
        raise ArtifactError(
            f"{path} is a document of the kind {found!r}, not a result of `mobiledeploy bench`.",
            remedy=_REWRITE,
        )
    if found != expected:
        raise ArtifactError(
            f"{path} is of the kind {found!r}; expected {expected!r}.",
            remedy="Times and instruction counts cannot be compared.",
        )
    try:
        return kind.model_validate_json(json.dumps(_upgraded(document)))
    except ValidationError as error:
        raise ArtifactError(
            f"{path} is not a complete result of `mobiledeploy bench`: {explain_invalid(error)}.",
            remedy=_REWRITE,
        ) from error


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document of schema 1 as one of schema 2.

    Schema 1 called a machine's URI `place`, and the fields of `baseline` had other names.
    """
    if document.get("schema") != 1:
        return document
    host = document.get("host")
    if isinstance(host, dict) and "place" in host:
        host = host | {"uri": host["place"]}
    return document | {"schema": 2, "host": host, "baseline": None}
