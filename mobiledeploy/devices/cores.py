"""Clusters of a processor's cores: big and little ones, told apart by their frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.devices.host import Host


class Cores(StrEnum):
    """Names of groups of cores."""

    BIG = "big"
    LITTLE = "little"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Cores with the same highest frequency.

    Attributes:
        cores: Their numbers, sorted.
        max_mhz: That frequency.
    """

    cores: tuple[int, ...]
    max_mhz: float


def clusters(core_mhz: Mapping[int, float]) -> tuple[Cluster, ...]:
    """Return the clusters of a processor, the slowest first.

    Args:
        core_mhz: The highest frequency of each core, in MHz.
    """
    return tuple(
        Cluster(
            cores=tuple(sorted(core for core, mhz in core_mhz.items() if mhz == speed)),
            max_mhz=speed,
        )
        for speed in sorted(set(core_mhz.values()))
    )


def named_cores(host: Host, name: Cores) -> tuple[int, ...]:
    """Return the cores that a name stands for; () for all of them.

    "little" is the slowest cluster, "big" are all others: phones have up to three clusters.

    Raises:
        UsageError: The device does not report frequencies, or all its cores have the same.
    """
    if name is Cores.ALL:
        return ()
    found = clusters(host.core_mhz)
    if len(found) < 2:
        what = (
            f"all {len(found[0].cores)} cores reach {found[0].max_mhz:g} MHz"
            if found
            else "its system does not report the frequencies of its cores (cpufreq)"
        )
        raise UsageError(
            f"{host.uri} has no {name} cores that can be told from others: {what}.",
            remedy="Name cores with --cpu-affinity, for example 4-7, or leave --cores out.",
        )
    little, *big = found
    chosen = [little] if name is Cores.LITTLE else big
    return tuple(sorted(core for cluster in chosen for core in cluster.cores))
