"""Which layers should compute in float, before it is known which those are."""

from __future__ import annotations

from dataclasses import dataclass

from mobiledeploy.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatDemand:
    """One of: these layers, so many, or as few as reach an SQNR.

    Attributes:
        names: Of layers.
        count: The noisiest.
        min_sqnr_db: Of the logits against float, on some images of the calibration.
    """

    names: tuple[str, ...] = ()
    count: int = 0
    min_sqnr_db: float | None = None

    @classmethod
    def parse(cls, keep_float: str | None, min_sqnr_db: float | None) -> FloatDemand | None:
        """Return what `--keep-float` and `--min-sqnr` ask for; None where they were not given.

        Raises:
            UsageError: both were given, or a count below one.
        """
        if keep_float is None:
            return None if min_sqnr_db is None else cls(min_sqnr_db=min_sqnr_db)
        if min_sqnr_db is not None:
            raise UsageError(
                "--keep-float says which layers are float, --min-sqnr asks for them to be chosen.",
                remedy="Give one of the two.",
            )
        if not keep_float.strip().lstrip("-").isdigit():
            names = tuple(name.strip() for name in keep_float.split(",") if name.strip())
            if names:
                return cls(names=names)
        elif int(keep_float) >= 1:
            return cls(count=int(keep_float))
        raise UsageError(
            f"--keep-float is {keep_float!r}; expected how many layers, or their names.",
            remedy="For example: --keep-float 2, or --keep-float features.0.0,classifier.1",
        )
