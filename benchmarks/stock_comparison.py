"""Measure mobiledeploy against the stock quantizers, and draw the chart of the README.

    MOBILEDEPLOY_SHARED=../shared python benchmarks/stock_comparison.py measure
    python benchmarks/stock_comparison.py chart

`measure` exports MobileNetV2 1.0-224 (ImageNet weights) with mobiledeploy and with the quantizers
that ship with the runtimes, evaluates all artifacts on 200 photographs, times them interleaved on
one thread, and writes docs/results/stock-quantizers.json. It takes about five minutes on two cores.
`chart` draws docs/assets/stock-quantizers.svg from that file.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from stock import write_stock_executorch, write_stock_onnxruntime

import mobiledeploy
from mobiledeploy.artifact.manifest import tool_versions
from mobiledeploy.bench.measure import measure as time_artifacts
from mobiledeploy.bench.stats import paired_ratio
from mobiledeploy.devices.host import describe_host
from mobiledeploy.metrics import sqnr_db, top1_accuracy, top1_agreement
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.utils.quiet import quietly

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "results" / "stock-quantizers.json"
CHART = DOCS / "assets" / "stock-quantizers.svg"
COMMAND = "MOBILEDEPLOY_SHARED=../shared python benchmarks/stock_comparison.py measure"
STOCK_IMAGES = 100  # min-max calibration gets worse with more images
RUNS = 150
COLOURS = {"float": "#9aa0a6", "mobiledeploy": "#00897b"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("measure", "chart"))
    if parser.parse_args().action == "measure":
        measure()
    else:
        draw_chart()


def measure() -> None:
    """Write accuracy, size and latency of every artifact to `RESULTS`."""
    sample = Path(os.environ["MOBILEDEPLOY_SHARED"]) / "data" / "imagenet-sample"
    model = mobiledeploy.build("v2")
    folded = mobiledeploy.fold(model)
    calibration = mobiledeploy.load_images(model, sample / "calib")
    evaluation = mobiledeploy.load_images(model, sample / "eval")
    assert evaluation.labels is not None
    with TemporaryDirectory() as name, quietly():
        folder = Path(name)
        ours = mobiledeploy.deploy(
            model, formats=["pte", "onnx"], calibration=calibration, out=folder / "ours"
        )
        pte, onnx = (artifact.path for artifact in ours.artifacts)
        few = calibration.spread(STOCK_IMAGES)
        write_stock_executorch(folded, few, folder / "stock.pte")
        write_stock_onnxruntime(folded, few, folder / "stock.onnx")
        entries = [
            ("float", mobiledeploy.export_onnx(folded, folder / "float.onnx").path),
            ("ExecuTorch's XNNPACKQuantizer", folder / "stock.pte"),
            ("ONNX Runtime's quantize_static", folder / "stock.onnx"),
            ("mobiledeploy", pte),
            ("mobiledeploy", onnx),
        ]
        logits = []
        for _, path in entries:
            with open_runner(path, threads=2) as runner:
                rows = [runner.run({"input": image[None]})["logits"] for image in evaluation.images]
            logits.append(np.concatenate(rows))
        times = time_artifacts([path for _, path in entries], threads=1, runs=RUNS)
        artifacts = [
            {
                "quantizer": quantizer,
                "format": path.suffix.removeprefix("."),
                "top1": top1_accuracy(found, evaluation.labels),
                "agreement": top1_agreement(logits[0], found),
                "sqnr_db": None if found is logits[0] else sqnr_db(logits[0], found),
                "size_bytes": path.stat().st_size,
                "median_ms": timed.median_ms,
                "ratio": paired_ratio(times[0], timed).median,
            }
            for (quantizer, path), found, timed in zip(entries, logits, times, strict=True)
        ]
    host = describe_host()
    document = {
        "command": COMMAND,
        "network": model.info.name,
        "weights": model.info.provenance.source,
        "evaluation_images": evaluation.count,
        "calibration_images": {"mobiledeploy": calibration.count, "stock": STOCK_IMAGES},
        "threads": 1,
        "runs": RUNS,
        "processor": host.model,
        "features": sorted(host.features or ()),
        "tool_versions": tool_versions(),
        "artifacts": artifacts,
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    print(table(document))


def table(document: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| artifact | top-1 | agreement with float | SQNR | size | latency ratio |",
        "|---|---|---|---|---|---|",
    ]
    for each in document["artifacts"]:
        sqnr = "" if each["sqnr_db"] is None else f"{each['sqnr_db']:.1f} dB"
        cells = [
            f"{each['quantizer']}, `.{each['format']}`",
            f"{each['top1']:.3f}",
            f"{each['agreement']:.3f}",
            sqnr,
            f"{each['size_bytes'] / 1e6:.2f} MB",
            f"{each['ratio']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_chart() -> None:
    """Draw accuracy, size and latency of the artifacts."""
    mpl.rcParams.update(
        {"svg.hashsalt": "mobiledeploy", "font.size": 10}
    )  # the same bytes each time
    artifacts = json.loads(RESULTS.read_text())["artifacts"]
    names = [f"{each['quantizer']} (.{each['format']})" for each in artifacts]
    colours = [COLOURS.get(each["quantizer"], "#5f7d95") for each in artifacts]
    figure, (top1, *bars) = plt.subplots(1, 4, figsize=(11, 2.6), sharey=True)
    accuracies = [each["top1"] for each in artifacts]
    top1.scatter(accuracies, names, color=colours, s=60, zorder=2)  # dots: the axis leaves out zero
    for name, value in zip(names, accuracies, strict=True):
        top1.annotate(
            f"{value:.3f}", (value, name), (7, 0), textcoords="offset points", va="center"
        )
    top1.set(xlim=(min(accuracies) - 0.01, max(accuracies) + 0.025), title="Top-1 accuracy")
    figures: list[tuple[str, str, list[float]]] = [
        ("Classes changed, %", "{:.1f}", [100 * (1 - each["agreement"]) for each in artifacts]),
        ("Size, MB", "{:.2f}", [each["size_bytes"] / 1e6 for each in artifacts]),
        ("Latency, float = 1", "{:.2f}", [each["ratio"] for each in artifacts]),
    ]
    for axis, (title, form, values) in zip(bars, figures, strict=True):
        drawn = axis.barh(names, values, color=colours, height=0.7)
        axis.bar_label(drawn, [form.format(value) for value in values], padding=3)
        axis.set(xlim=(0, 1.25 * max(values)), title=title)
    for axis in (top1, *bars):
        axis.title.set_fontsize(11)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    top1.invert_yaxis()
    figure.tight_layout()
    CHART.parent.mkdir(exist_ok=True)
    figure.savefig(CHART, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
