"""Make points on a Ray cluster.

Inputs travel by content: each file is put into the object store once, and a node writes it into its
cache once, under its sha256. Artifacts come back with the result and are written by the driver, so
that they lie where a sweep without a cluster would put them. Ray repeats tasks whose worker dies.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mobiledeploy.errors import MobileDeployError, RuntimeFailedError, UsageError
from mobiledeploy.sweep.commands import Commands, InterruptedCommandError
from mobiledeploy.sweep.make_point import DeviceName, failed, make, versions
from mobiledeploy.sweep.measure_points import measured_on, together
from mobiledeploy.sweep.moved_paths import back_to_driver
from mobiledeploy.utils.files import cache_folder, removed_when_done, write_whole
from mobiledeploy.utils.progress import step, track

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from mobiledeploy.sweep.make_point import Plan
    from mobiledeploy.sweep.points import Point
    from mobiledeploy.sweep.run import Put
    from mobiledeploy.sweep.store import Result

_RETRIES = 3  # of a task whose worker died
_PART_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A file or folder of the driver in the object store.

    Attributes:
        path: Its path on the driver, as it was given.
        name: The last part of that path.
        digest: sha256 over names and contents.
        parts: References to lists of (relative path, content).
    """

    path: str
    name: str
    digest: str
    parts: tuple[Any, ...]

    def unpack(self) -> Path:
        """Return the path in this node's cache; write the content if it is not there yet."""
        import ray  # noqa: PLC0415 - an optional extra

        folder = cache_folder() / "sweep-inputs" / self.digest
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with removed_when_done(".", ".part", folder.parent) as work:
                for part in self.parts:
                    for relative, content in ray.get(part):
                        target = work / relative
                        target.parent.mkdir(parents=True, exist_ok=True)
                        target.write_bytes(content)
                with suppress(OSError):  # another task of this node was faster
                    work.rename(folder)
                    work.mkdir()  # for the end of the context
        return folder / self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a task returns.

    Attributes:
        result: The result; its paths are those of the driver.
        files: Contents of the artifacts and manifests, by file name.
    """

    result: Result
    files: Mapping[str, bytes]


def require_ray() -> None:
    """Raise UsageError if Ray is not installed."""
    if find_spec("ray") is None:
        raise UsageError(
            "--cluster needs Ray, which is not installed.",
            remedy='Run: pip install "mobiledeploy[ray]"',
        )


class RayWorkers:
    """Tasks on a Ray cluster. Use it as a context manager.

    Args:
        plan: What is done with every point.
        cluster: "ray" for the cluster that runs on this machine, which is started if there is none;
            or ray://HOST:PORT.

    Raises:
        UsageError: Ray is not installed.
        RuntimeFailedError: the cluster cannot be reached.
    """

    def __init__(self, plan: Plan, cluster: str) -> None:
        require_ray()
        import ray  # noqa: PLC0415 - an optional extra

        self._ray = ray
        self._plan = plan
        self._commands = Commands()
        address = None if cluster == "ray" else cluster
        try:
            with step("Connecting to Ray"):
                ray.init(address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray raises errors of many kinds
            raise RuntimeFailedError(
                f"Could not connect to the cluster {cluster}: {error}",
                remedy="Start it with `ray start --head`, and pass ray://HOST:10001.",
            ) from error
        self._shipped: dict[Path, Shipped] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop what still runs, and disconnect."""
        self._commands.__exit__()
        self._ray.shutdown()

    @property
    def slots(self) -> int:
        """Return the number of tasks that the cluster runs at the same time."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def make(self, points: Mapping[str, Point], put: Put) -> None:
        """Make points; hand over each result as soon as it is there."""
        remote = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(_make_remotely)
        shared = [self._ship(path) for path in (self._plan.calib_data, self._plan.data)]
        tasks = {}
        for key, point in points.items():
            files = point.checkpoint_files()
            checkpoint = self._ship(*files) if files else None
            inputs = (*shared, checkpoint)
            task = remote.remote(point, self._plan, key, inputs, versions())
            tasks[task] = key, point
        for task, made in track(self._finished(list(tasks)), "Exporting", len(tasks)):
            key, point = tasks[task]
            result = failed(point, made) if isinstance(made, MobileDeployError) else made.result
            if isinstance(made, Made):
                self._write(self._plan.folder(point, key), made.files)
            put(key, result)

    def measure(self, results: Mapping[str, Result], put: Put) -> None:
        """Measure latency: devices with a name in tasks that take one of it, then the others."""
        named = [each for each in self._plan.devices if DeviceName(each).name]
        tasks = {}
        for key, result in results.items():
            files = _contents(self._plan.folder(result.point, key))
            for device in named:
                remote = self._ray.remote(
                    num_cpus=0, resources={DeviceName(device).name: 1}, max_retries=_RETRIES
                )(_measure_remotely)
                tasks[remote.remote(result, device, self._plan, files, versions())] = key
        measured = dict(results)
        for task, made in track(
            self._finished(list(tasks)), "Measuring on the cluster", len(tasks)
        ):
            key = tasks[task]
            before = measured[key]
            found = failed(before.point, made) if isinstance(made, MobileDeployError) else made
            measured[key] = _joined(before, found)
            put(key, measured[key])
        rest = {key: each for key, each in measured.items() if each.state == "exported"}
        others = [each for each in self._plan.devices if each not in named]
        groups = together(rest, self._plan)
        for group in track(groups, "Measuring latency", len(groups)):
            found_here = measured_on([*group.values()], others, self._plan, self._commands)
            for key, result in zip(group, found_here, strict=True):
                put(key, result)

    def _finished(self, tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield tasks with what they returned, or with an error, as they finish."""
        waiting = list(tasks)
        try:
            while waiting:
                (done, *_), waiting = self._ray.wait(waiting)
                try:
                    yield done, self._ray.get(done)
                except self._ray.exceptions.WorkerCrashedError:
                    yield done, InterruptedCommandError("The worker died repeatedly.")
                except self._ray.exceptions.RayError as error:
                    yield done, RuntimeFailedError(f"The task failed: {error}")
        finally:
            for task in waiting:
                self._ray.cancel(task)

    def _ship(self, path: Path | None, *beside: Path) -> Shipped | None:
        """Put a file or a folder into the object store, once; with it, files beside it."""
        if path is None:
            return None
        if path not in self._shipped:
            with step(f"Sending {path.name}"):
                self._shipped[path] = self._sent(path, beside)
        return self._shipped[path]

    def _sent(self, path: Path, beside: Sequence[Path]) -> Shipped:
        digest = hashlib.sha256()
        parts, pending, size = [], [], 0
        whole = path.resolve()
        inside = sorted(each for each in whole.rglob("*") if each.is_file())
        together = (whole, *(each.resolve() for each in beside))
        for file in inside if whole.is_dir() else together:
            relative = file.relative_to(whole.parent).as_posix()
            content = file.read_bytes()
            digest.update(f"{relative} {hashlib.sha256(content).hexdigest()}\n".encode())
            pending.append((relative, content))
            size += len(content)
            if size >= _PART_BYTES:
                parts.append(self._ray.put(pending))
                pending, size = [], 0
        parts.append(self._ray.put(pending))
        return Shipped(
            path=str(path), name=whole.name, digest=digest.hexdigest(), parts=tuple(parts)
        )

    @staticmethod
    def _write(folder: Path, files: Mapping[str, bytes]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with write_whole(folder / name) as part:
                part.write_bytes(content)


def _make_remotely(
    point: Point,
    plan: Plan,
    identity: str,
    inputs: Sequence[Shipped | None],
    expected: Mapping[str, str],
) -> Made:
    """Make a point on a node, as a Ray task."""
    try:
        _require_versions(expected)
        places = {each: each.unpack() for each in inputs if each is not None}
    except MobileDeployError as error:
        return Made(result=failed(point, error), files={})
    except OSError as error:  # most often the cache's disk is full
        problem = InterruptedCommandError(f"{os.uname().nodename}: {error}.")
        return Made(result=failed(point, problem), files={})
    calib_data, data, checkpoint = (None if each is None else places[each] for each in inputs)
    home = plan.folder(point, identity)
    with removed_when_done("mobiledeploy-") as work:
        here = replace(
            plan,
            out=work,
            calib_data=calib_data,
            data=data,
            jobs=os.cpu_count() or 1,  # so that each export computes on one core, as Ray planned
        )
        moved = point if checkpoint is None else replace(point, weights=str(checkpoint))
        made = make(moved, here, identity, _commands())
        folder = here.folder(point, identity)
        paths = {str(there): each.path for each, there in places.items()}
        files = back_to_driver(_contents(folder), paths, folder, home)
        artifacts = tuple(
            replace(each, path=str(home / Path(each.path).name)) for each in made.artifacts
        )
        message = made.error.replace(str(work), str(plan.out))
        result = replace(made, point=point, artifacts=artifacts, error=message)
        return Made(result=result, files=files)


def _measure_remotely(
    result: Result, device: str, plan: Plan, files: Mapping[str, bytes], expected: Mapping[str, str]
) -> Result:
    """Measure the artifacts of a point on one device of a node, as a Ray task."""
    try:
        _require_versions(expected)
    except MobileDeployError as error:
        return failed(result.point, error)
    with removed_when_done("mobiledeploy-") as work:
        for file, content in files.items():
            (work / file).write_bytes(content)
        here = tuple(
            replace(each, path=str(work / Path(each.path).name)) for each in result.artifacts
        )
        moved = replace(result, artifacts=here)
        (measured,) = measured_on([moved], [device], plan, _commands())
        artifacts = tuple(
            replace(there, path=each.path)
            for there, each in zip(measured.artifacts, result.artifacts, strict=True)
        )
        return replace(measured, artifacts=artifacts)


@cache
def _commands() -> Commands:
    """Return the commands of this worker of Ray, whose processes serve all tasks that it gets."""
    return Commands()


def _joined(before: Result, found: Result) -> Result:
    """Return a result with the latencies of both."""
    if not found.artifacts:
        state = before.state if found.state == "interrupted" else found.state
        return replace(before, state=state, error=found.error)
    artifacts = tuple(
        replace(
            each,
            latency_ms=each.latency_ms | other.latency_ms,
            instructions=each.instructions | other.instructions,
            machines=each.machines | other.machines,
        )
        for each, other in zip(before.artifacts, found.artifacts, strict=True)
    )
    return replace(found, artifacts=artifacts)


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the contents of the files of a folder by name; empty if there is no folder."""
    if not folder.is_dir():
        return {}
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir()) if each.is_file()}


def _require_versions(expected: Mapping[str, str]) -> None:
    """Raise unless this node has the packages of the driver: others make other artifacts."""
    found = versions()
    for name, version in expected.items():
        if found[name] != version:
            raise RuntimeFailedError(
                f"The node {os.uname().nodename} has {name} {found[name]}, expected {version}."
            )
