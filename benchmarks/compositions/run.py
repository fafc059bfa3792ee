"""Count the outputs in which the runtimes differ from the integer reference, for eight networks.

Behind a softmax or an L2 normalisation, which are float, those count that differ by more than
parity allows.

    python benchmarks/compositions/run.py [--images 8] [NAME ...]

Quantizes every network of `networks.py` in full size with random weights on bundled images, exports
it to all formats and runs them. Takes about 20 minutes on two cores.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import tempfile
from pathlib import Path

import numpy as np

from mobiledeploy.export.write import export_executorch, export_onnx, export_tflite
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.parity.ladder import ACTIVATED
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import RECIPES
from mobiledeploy.utils.outputs import activated
from mobiledeploy.utils.quiet import quietly

NETWORKS = {
    "tutorial_v3": (224, "probabilities:classes"),
    "mlp_head": (224, "logits:classes"),
    "two_heads": (224, "age:regression", "gender:classes"),
    "landmarks": (224, "logits:regression"),
    "embedding": (224, "embedding:embedding"),
    "ssdlite": (320, "scores:regression", "boxes:boxes"),
    "lraspp": (224, "logits:map"),
    "deeplab_v3": (224, "logits:map"),
}
FORMATS = {"onnx": export_onnx, "pte": export_executorch, "tflite": export_tflite}
CODE = Path(__file__).parent / "networks.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--images", type=int, default=8)
    arguments = parser.parse_args()
    print("| network | input | outputs | values compared | .onnx | .pte | .tflite | int8 |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.names:
        with quietly(), tempfile.TemporaryDirectory() as folder:
            row = compare(name, arguments.images, Path(folder))
        print(row, flush=True)


def compare(name: str, count: int, folder: Path) -> str:
    """Return the row of one network: outputs that differ from the reference, per format."""
    resolution, *outputs = NETWORKS[name]
    model = build(f"{CODE}:{name}", weights="random", resolution=resolution, outputs=outputs)
    calibration = load_images(model, None)
    recipe = RECIPES["fast"]
    int8 = quantize(equalize(fold_graph(model), calibration), calibration, recipe)
    images = {"input": calibration.spread(count).images}
    expected = IntegerReference(int8).run(images)
    differing, shares = [], []
    for format_, export in FORMATS.items():
        artifact = export(int8, folder / f"net.{format_}")
        with open_runner(artifact.path) as runner:
            found = runner.run(images)
        differing.append(
            sum(
                _differing(found[each.name], expected[each.name], each)
                for each in model.info.outputs
            )
        )
        shares.append(artifact.coverage.elements_share if artifact.coverage else 0.0)
    shapes = ", ".join(f"{each.name} {each.shape}" for each in model.info.outputs)
    values = sum(array.size for array in expected.values())
    columns = (name, resolution, shapes, f"{values:,}", *differing, f"{min(shares):.0%}")
    return f"| {' | '.join(map(str, columns))} |"


def _differing(found, expected, output) -> int:  # noqa: ANN001 - arrays and an OutputSpec
    if output.activation == "none":
        return int(np.count_nonzero(found != expected))
    difference = np.abs(found - activated(expected, (output,)))
    return int(np.count_nonzero(difference > ACTIVATED["max_max_abs_difference"]))


if __name__ == "__main__":
    main()
