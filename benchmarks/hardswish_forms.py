"""Compare forms of hard-swish in an int8 `.pte`, by time and by accuracy.

    python benchmarks/hardswish_forms.py time V3.pte... [--rounds 150]
    python benchmarks/hardswish_forms.py accuracy FAMILY CHECKPOINT --calib NPZ --eval NPZ

`time` rewrites the hard-swishes of int8 artifacts, measures all forms in one run (like
`mobiledeploy bench`), and times their operators alone (like `bench --profile`). Recent versions of
XNNPACK merge a chain of operators with one input into a table when they load a network.

`accuracy` quantizes a checkpoint at 64x64 and compares each form with the float network. It adds
two float hard-swishes: on the unrounded sums of the convolution before it, which no runtime offers,
and on these sums rounded to int8 over their whole range, which runtimes do.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobiledeploy.artifact.flatbuffer import Generated, bindings
from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.profile import profile
from mobiledeploy.bench.stats import paired_ratio
from mobiledeploy.bench.xnnpack_operators import as_program, delegate_graphs, read_graph
from mobiledeploy.metrics import differing_logits, sqnr_db, top1_accuracy
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.quantization import integer_reference as reference
from mobiledeploy.quantization.encodings import encode
from mobiledeploy.quantization.integer_operators import Scaled
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import RECIPES, QuantizedModel
from mobiledeploy.utils.quiet import quietly

SCHEMA = bindings("backends/xnnpack/serialization/schema.fbs")
NODES = SCHEMA.XNodeUnion
FLOAT, INT8 = 1, 3
NOT_EXTERNAL = 0xFFFFFFFF
# A constant c is encoded as the code 127 with scale c / 127.
CONSTANT_CODE = 127


class Rewriter:
    """The graph of the one delegate in a `.pte`, in which hard-swishes are replaced."""

    def __init__(self, path: Path) -> None:
        ((raw, self.constants),) = delegate_graphs(path)
        self.graph = read_graph(raw)
        self.values = {tensor(value).idOut: value for value in self.graph.xvalues}
        self.made: list[Generated] = []

    def replace(self, form: Callable[["Rewriter", int, int], None]) -> tuple[bytes, list[int]]:
        """Replace every hard-swish; return the program and the indices of the new operators."""
        made = []
        for node in list(self.graph.xnodes):
            if node.xnodeUnionType == NODES.XNNHardswish:
                self.made = []
                form(self, node.xnodeUnion.inputId, node.xnodeUnion.outputId)
                index = self.graph.xnodes.index(node)
                self.graph.xnodes[index : index + 1] = self.made
                made += self.made
        indices = [self.graph.xnodes.index(node) for node in made]
        return as_program(self.graph, self.constants), indices

    def node(self, kind: str, *ends: int) -> None:
        """Append an operator; `ends` are the ids of its inputs and its output."""
        node, union = SCHEMA.XNodeT(), getattr(SCHEMA, f"_XNNNode{len(ends) - 1}x1T")()
        names = ("inputId",) if len(ends) == 2 else ("input1Id", "input2Id")
        for name, end in zip((*names, "outputId"), ends, strict=True):
            setattr(union, name, end)
        union.flags = 0
        node.xnodeUnionType, node.xnodeUnion = getattr(NODES, kind), union
        self.made.append(node)

    def value(self, like: int, *, scale: float | None = None, zero_point: int = 0) -> int:
        """Return the id of a new value shaped like `like`: int8 with a scale, or else float."""
        dims = tensor(self.values[like]).dims
        return self._add(dims, scale, zero_point, constant=0)

    def constant(self, number: float) -> int:
        """Return the id of a new constant."""
        self.constants.append(struct.pack("b", CONSTANT_CODE))
        self.graph.constantData.append(SCHEMA.ConstantDataOffsetT())
        scale = number / CONSTANT_CODE
        return self._add(np.ones(1, np.uint32), scale, 0, constant=len(self.constants) - 1)

    def _add(self, dims: np.ndarray, scale: float | None, zero_point: int, constant: int) -> int:
        made = SCHEMA.XNNTensorValueT()
        made.numDims, made.dims, made.constantBufferIdx = len(dims), dims.copy(), constant
        made.externalId, made.flags, made.idOut = NOT_EXTERNAL, 0, max(self.values) + 1
        made.datatype = FLOAT if scale is None else INT8
        value = SCHEMA.XValueT()
        value.xvalueUnionType, value.xvalueUnion = SCHEMA.XValueUnion.XNNTensorValue, made
        if scale is not None:
            union = SCHEMA.XNNQuantizedTensorValueT()
            union.tensorValue, union.quantParams = made, SCHEMA.PerTensorQuantT()
            union.quantParamsType = SCHEMA.XNNQuantParams.PerTensorQuant
            union.quantParams.scale, union.quantParams.zeroPoint = scale, zero_point
            value.xvalueUnionType = SCHEMA.XValueUnion.XNNQuantizedTensorValue
            value.xvalueUnion = union
        self.graph.xvalues.append(value)
        self.values[made.idOut] = value
        return made.idOut

    def quantization(self, number: int) -> Generated:
        """Return the quantization parameters of a value, with its scale or scales."""
        return self.values[number].xvalueUnion.quantParams

    def readers(self, number: int) -> list[Generated]:
        """Return the operators that read an activation."""
        names = ("inputId", "input1Id", "input2Id")
        return [
            node
            for node in self.graph.xnodes
            if number in [getattr(node.xnodeUnion, name, None) for name in names]
        ]

    def is_added(self, number: int) -> bool:
        """Return whether an addition reads an activation, directly or through linear operators."""
        return any(
            node.xnodeUnionType == NODES.XNNAdd
            or (
                not hasattr(node.xnodeUnion, "filterId") and self.is_added(node.xnodeUnion.outputId)
            )
            for node in self.readers(number)
        )

    def enlarge(self, number: int, factor: float) -> None:
        """Multiply a value's scale by a factor, and divide the weights that read it by it."""
        self.quantization(number).scale *= factor
        for node in self.readers(number):
            if hasattr(node.xnodeUnion, "filterId"):
                self._divide_weights(self.quantization(node.xnodeUnion.filterId), factor)
            else:
                self.enlarge(node.xnodeUnion.outputId, factor)

    def _divide_weights(self, scales: Generated, factor: float) -> None:
        divided = np.frombuffer(self.constants[scales.scaleBufferIdx], np.float32) / factor
        self.constants.append(divided.astype(np.float32).tobytes())
        self.graph.constantData.append(SCHEMA.ConstantDataOffsetT())
        scales.scaleBufferIdx = len(self.constants) - 1


def tensor(value: Generated) -> Generated:
    return getattr(value.xvalueUnion, "tensorValue", None) or value.xvalueUnion


def table(graph: Rewriter, x: int, y: int) -> None:
    graph.node("XNNHardswish", x, y)


def in_float(graph: Rewriter, x: int, y: int) -> None:
    real, result = graph.value(x), graph.value(x)
    graph.node("XNNConvert", x, real)
    graph.node("XNNHardswish", real, result)
    graph.node("XNNConvert", result, y)


def add_and_multiply(graph: Rewriter, x: int, y: int) -> None:
    """Compute x clamp(x + 3, 0, 6) in int8, then multiply by 1/6; saturation is the clamp."""
    out = graph.quantization(y)
    product = graph.value(x, scale=6 * out.scale, zero_point=out.zeroPoint)
    _product(graph, x, product)
    graph.node("XNNMultiply", product, graph.constant(1 / 6), y)


def absorbed(graph: Rewriter, x: int, y: int) -> None:
    """Divide the weights that read the result by 6 instead; impossible in a residual stream."""
    if graph.is_added(y):
        add_and_multiply(graph, x, y)
        return
    graph.enlarge(y, 6.0)
    _product(graph, x, y)


def _product(graph: Rewriter, x: int, product: int) -> None:
    clamped = graph.value(x, scale=6 / 255, zero_point=-128)
    graph.node("XNNAdd", x, graph.constant(3.0), clamped)
    graph.node("XNNMultiply", x, clamped, product)


FORMS = {
    "table of 256 codes": table,
    "float, same encodings": in_float,
    "int8 add, multiply, multiply": add_and_multiply,
    "int8 add, multiply; 1/6 in the next weights": absorbed,
}


def write_forms(path: Path, folder: Path) -> list[tuple[Path, list[int]]]:
    """Write an artifact in each form; return paths and indices of the hard-swish operators."""
    written = []
    for number, form in enumerate(FORMS.values()):
        program, indices = Rewriter(path).replace(form)
        written.append((folder / f"{path.stem}-{number}.pte", indices))
        written[-1][0].write_bytes(program)
    return written


def time(path: Path, rounds: int) -> None:
    """Print a row per form: time of the network, and of its hard-swish operators alone."""
    with tempfile.TemporaryDirectory() as folder:
        forms = write_forms(path, Path(folder))
        measured = measure([path, *(form for form, _ in forms)], runs=rounds)
        for label, (form, indices), result in zip(FORMS, forms, measured[1:], strict=True):
            ratio = paired_ratio(measured[0], result)
            operators = profile(form, runs=50).operators
            alone = sum(operators[index].median_us for index in indices)
            print(f"| {path.stem} | {label} | {ratio.median:.3f} | {alone:.0f} |", flush=True)


class FloatHardswish(reference._Interpreter):  # noqa: SLF001 - the same but for one operator
    """The integer reference with each hard-swish in float.

    A hard-swish reads the sums of the convolution before it, unrounded or rounded to int8 over the
    range in `lows` and `highs`, as runtimes would.

    Attributes:
        lows: Least input of each hard-swish, by node name; recorded while `rounded` is False.
        highs: Largest input of each hard-swish, likewise.
        rounded: Whether inputs are rounded to int8.
    """

    lows: dict[str, float]
    highs: dict[str, float]
    rounded = False

    def run_node(self, n: torch.fx.Node) -> object:
        """Run a node of the graph."""
        if n.target is not torch.ops.aten.hardswish.default:
            return super().run_node(n)
        value = self.env[n.args[0].args[0].args[0]]
        x = value.values.double() * value.scale.double()
        if self.rounded:
            encoding = encode(self.lows[n.name], self.highs[n.name])
            codes = (x / encoding.scale).round() + encoding.zero_point
            x = (codes.clamp(-128, 127) - encoding.zero_point) * encoding.scale
        else:
            self.lows[n.name] = min(self.lows.get(n.name, 0.0), float(x.min()))
            self.highs[n.name] = max(self.highs.get(n.name, 0.0), float(x.max()))
        return Scaled(torch.nn.functional.hardswish(x), torch.tensor(1.0))


def float_logits(model: QuantizedModel, images: np.ndarray, calib: np.ndarray) -> dict[str, Any]:
    """Return the logits of a network with float hard-swishes, by form of their inputs."""
    module = model.program.module(check_guards=False)
    interpreter = FloatHardswish(module, garbage_collect_values=False)
    interpreter.lows, interpreter.highs = {}, {}

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            batches = torch.from_numpy(images).split(100)
            return np.concatenate([interpreter.run(batch).real.numpy() for batch in batches])

    unrounded = run(images)
    interpreter.lows, interpreter.highs = {}, {}
    run(calib)
    interpreter.rounded = True
    return {
        "float, from unrounded sums": unrounded,
        "float, from int8 of the whole range": run(images),
    }


def accuracy(family: str, checkpoint: Path, calib: Path, eval_set: Path, ptq: str) -> None:
    """Print a row per form: top-1 and SQNR over the images of an `.npz`."""
    with tempfile.TemporaryDirectory() as folder:
        with quietly():
            model = build(family, weights=str(checkpoint), resolution=64)
            calibration = load_images(model, calib, 200)
            deployed = deploy(
                model,
                formats=("pte",),
                calibration=calibration,
                recipe=RECIPES[ptq],
                out=Path(folder),
                parity=False,
            )
        images = load_images(model, eval_set, 1000).images
        labels = np.load(eval_set)["labels"][: len(images)]
        with torch.no_grad():
            expected = model.module(torch.from_numpy(images)).numpy()
        results = {"float network": expected}
        results |= float_logits(deployed.model, images, calibration.images)
        forms = write_forms(deployed.artifacts[0].path, Path(folder))
        for label, (path, _) in zip(FORMS, forms, strict=True):
            with open_runner(path) as runner:
                results[label] = runner.run({"input": images})["logits"]
    for label, logits in results.items():
        top1 = top1_accuracy(logits, labels)
        noise = "" if logits is expected else f"{sqnr_db(expected, logits):.2f}"
        other = differing_logits(results[next(iter(FORMS))], logits)
        print(f"| {family} | {label} | {top1:.3f} | {noise} | {other} of {logits.size} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    timing = actions.add_parser("time")
    timing.add_argument("artifacts", type=Path, nargs="+")
    timing.add_argument("--rounds", type=int, default=150)
    comparing = actions.add_parser("accuracy")
    comparing.add_argument("family")
    comparing.add_argument("checkpoint", type=Path)
    comparing.add_argument("--calib", type=Path, required=True)
    comparing.add_argument("--eval", type=Path, required=True)
    comparing.add_argument("--ptq", choices=RECIPES, default="balanced")
    arguments = parser.parse_args()
    if arguments.action == "time":
        print("| network | hard-swish | ratio | operators alone, us |\n|---|---|---|---|")
        for path in arguments.artifacts:
            time(path, arguments.rounds)
    else:
        print("| network | hard-swish | top-1 | SQNR dB | logits unlike the table's |")
        print("|---|---|---|---|---|")
        accuracy(
            arguments.family, arguments.checkpoint, arguments.calib, arguments.eval, arguments.ptq
        )


if __name__ == "__main__":
    main()
