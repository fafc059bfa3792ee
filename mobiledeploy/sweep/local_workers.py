"""Make points in processes on this machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.sweep.commands import Commands
from mobiledeploy.sweep.make_point import make
from mobiledeploy.sweep.measure_points import measured_on, together
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.sweep.make_point import Plan
    from mobiledeploy.sweep.points import Point
    from mobiledeploy.sweep.run import Put
    from mobiledeploy.sweep.store import Result


class LocalWorkers:
    """Processes on this machine. Use it as a context manager.

    Args:
        plan: What is done with every point; `jobs` of them run at the same time.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._commands = Commands()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self._commands.__exit__()

    @property
    def slots(self) -> int:
        """Return the number of jobs."""
        return self._plan.jobs

    def make(self, points: Mapping[str, Point], put: Put) -> None:
        """Make points; after Ctrl-C or an error, stop the others and keep what is finished."""
        pool = ThreadPoolExecutor(self._plan.jobs)
        futures = {
            pool.submit(make, point, self._plan, key, self._commands): key
            for key, point in points.items()
        }
        try:
            for future in track(as_completed(futures), "Exporting", len(futures)):
                put(futures[future], future.result())
        except BaseException:
            self._commands.stop()
            pool.shutdown(cancel_futures=True)
            for future, key in futures.items():
                if not future.cancelled():
                    with suppress(RuntimeFailedError):  # the same disk may be full
                        put(key, future.result())
            raise
        pool.shutdown()

    def measure(self, results: Mapping[str, Result], put: Put) -> None:
        """Measure the latency of exported points, a few at a time."""
        plan = self._plan
        groups = together(results, plan)
        for group in track(groups, "Measuring latency", len(groups)):
            measured = measured_on([*group.values()], plan.devices, plan, self._commands)
            for key, result in zip(group, measured, strict=True):
                put(key, result)
