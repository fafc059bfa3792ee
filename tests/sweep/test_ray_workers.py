"""A sweep on a Ray cluster of two nodes on this machine, against one without a cluster."""

import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import real_parts

from mobiledeploy.sweep.local_workers import LocalWorkers
from mobiledeploy.sweep.make_point import Plan
from mobiledeploy.sweep.pick import Budget
from mobiledeploy.sweep.points import grid
from mobiledeploy.sweep.ray_workers import RayWorkers
from mobiledeploy.sweep.run import run
from mobiledeploy.sweep.store import Store

# Ray's own processes and sockets outlive a test by a moment
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CLIENT_PORT = 24_765
AXES = {"width": ["0.25"], "resolution": ["32"], "ptq": ["fast"], "weights": ["random"]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two nodes with one core each, of which one has a board named `pi5`."""
    if find_spec("ray") is None:
        real_parts.missing("ray", 'pip install "mobiledeploy[ray]"')
    from ray.cluster_utils import Cluster

    cache = tmp_path_factory.mktemp("node-cache")
    before = os.environ.get("MOBILEDEPLOY_CACHE")
    os.environ["MOBILEDEPLOY_CACHE"] = str(cache)  # the nodes inherit it
    head = {"num_cpus": 1, "include_dashboard": False, "ray_client_server_port": CLIENT_PORT}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, resources={"pi5": 1})
    os.environ["RAY_ADDRESS"] = made.address
    yield cache
    made.shutdown()
    del os.environ["RAY_ADDRESS"]
    if before is None:
        del os.environ["MOBILEDEPLOY_CACHE"]
    else:
        os.environ["MOBILEDEPLOY_CACHE"] = before


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Sixteen labelled images, by a relative path."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(16) % 10
    np.savez("images.npz", images=pixels, labels=labels)
    return Path("images.npz")


def plan(images, out, **changes):
    given = {
        "formats": ("onnx",),
        "out": Path(out),
        "calib_data": images,
        "data": images,
        "samples": None,
        "devices": ("pi5=local", "local"),
        "runs": 5,
        "jobs": 1,
        "budget": Budget(),
    }
    return Plan(**(given | changes))


def sweep(points, wanted, workers):
    wanted.out.mkdir(exist_ok=True)
    with Store(wanted.out / "sweep.sqlite") as store:
        return run(points, wanted, store, workers, retry=False)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "sweep.sqlite"
    }


def test_artifacts_and_manifests_are_those_of_a_local_sweep(cluster, images):
    points = grid(AXES | {"model": ["v1", "v2"]})
    local = plan(images, "local", jobs=os.cpu_count())  # one thread each, as on the cluster
    remote = plan(images, "remote")
    with RayWorkers(remote, "ray") as workers:
        assert workers.slots == 2
        on_cluster = sweep(points, remote, workers)
    with LocalWorkers(local) as workers:
        here = sweep(points, local, workers)
    assert [result.state for result in on_cluster] == ["done", "done"]
    assert contents(remote.out) == contents(local.out)
    assert len(contents(remote.out)) == 4
    for one, other in zip(on_cluster, here, strict=True):
        (artifact,), (same,) = one.artifacts, other.artifacts
        assert artifact.path == same.path.replace("local/", "remote/", 1)
        assert (artifact.sha256, artifact.top1) == (same.sha256, same.top1)
        assert sorted(artifact.latency_ms) == ["local", "pi5=local"]
        assert set(artifact.machines) == {"local", "pi5=local"}
    assert len(list((cluster / "sweep-inputs").iterdir())) == 1  # sent once, by its content


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_one_point_its_time(images):
    points = grid(AXES | {"model": ["v1", "v2", "v3-small"]})
    wanted = plan(images, "killed", data=None, devices=("local",))
    killed = []

    def put(identity, result):
        results[identity] = result
        if not killed:
            killed.append(kill_a_worker())

    results = {}
    with RayWorkers(wanted, f"ray://127.0.0.1:{CLIENT_PORT}") as workers:
        context = wanted.context()
        asked = {point.identity(context): point for point in points}
        workers.make(asked, put)
    assert len(killed) == 1
    assert [result.state for result in results.values()] == ["exported"] * 3
    assert set(results) == set(asked)
    for result in results.values():
        assert Path(result.artifacts[0].path).is_file()


def kill_a_worker():
    """Kill a worker process of Ray that runs an export; return its id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = status.read_bytes().split(b"\0")
                if b"mobiledeploy.sweep.child" not in command:
                    continue
                worker = int(command[command.index(b"mobiledeploy.sweep.child") + 1])
                if not Path(f"/proc/{worker}/cmdline").read_bytes().startswith(b"ray::"):
                    continue  # of another sweep on this machine
            except OSError:  # it has just ended
                continue
            os.kill(worker, signal.SIGKILL)
            return worker
        time.sleep(0.05)
    raise AssertionError("no worker runs an export")
