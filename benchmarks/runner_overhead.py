"""Time the native runner against the Python agent on this machine, with the same artifacts.

    mobiledeploy device setup exec:env
    python benchmarks/runner_overhead.py ARTIFACT... [--sessions 20] [--runs 50]

Sessions of the two alternate, in a new order for each pair, and each has a process of its own. The
ratio of a pair is that of the medians of its sessions; the table has the median of these ratios and
its 95% interval. Run it on a quiet machine.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import random
import statistics
from pathlib import Path

from mobiledeploy.devices.open import Device, open_device
from mobiledeploy.devices.request import Request
from mobiledeploy.significance import median_interval

WARMUP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=50)
    arguments = parser.parse_args()
    order = random.Random(0)
    print("| artifact | native runner | Python agent | ms | native / Python (95%) |")
    print("|---|---|---|---|---|")
    with open_device("exec:env", runner="native") as native, open_device() as python:
        devices = {"native": native, "python": python}
        for path in arguments.artifacts:
            pairs = []
            for _ in range(arguments.sessions):
                turns = order.sample(sorted(devices), 2)
                pairs.append({name: time(devices[name], path, arguments.runs) for name in turns})
            ratios = [pair["native"][1] / pair["python"][1] for pair in pairs]
            low, ratio, high = median_interval(ratios)
            ms = [
                statistics.median(pair[name][1] for pair in pairs) for name in ("native", "python")
            ]
            cells = (
                *(path.name, pairs[0]["native"][0], pairs[0]["python"][0]),
                f"{ms[0]:.3f} / {ms[1]:.3f}",
                f"{ratio:.3f} [{low:.3f}, {high:.3f}]",
            )
            print("|", " | ".join(cells), "|", flush=True)


def time(device: Device, path: Path, runs: int) -> tuple[str, float]:
    """Return the runtime, and the median time of an inference in one session."""
    request = Request(task="bench", artifacts=(path,), inputs=(None,), rounds=runs, warmup=WARMUP)
    *_, last = device.run_session(request)
    result = last["result"]
    return result["fresh"]["runtime"], statistics.median(result["times_ms"][0])


if __name__ == "__main__":
    main()
