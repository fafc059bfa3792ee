"""Hard-swish of int8 codes: every code of every encoding, in the reference and both runtimes.

`export.onnx_passes.integer_hardswish` states the theorem; these tests cover its parts.
"""

import networks
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from xnnpack_programs import run_program

from mobiledeploy.artifact.flatbuffer import bindings
from mobiledeploy.artifact.pte_file import read_pte, split_xnnpack_payload
from mobiledeploy.bench import xnnpack_operators
from mobiledeploy.export import onnx as to_onnx
from mobiledeploy.export.onnx_passes.integer_hardswish import IntegerHardSwish
from mobiledeploy.quantization import integer_operators as reference
from mobiledeploy.quantization.encodings import encode, encode_before_hardswish, encode_hardswish
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import Encoding
from mobiledeploy.utils.quiet import quietly

quantized = torch.ops.quantized_decomposed
CODES = np.arange(-128, 128)
LARGEST = [0.3, 3.0, 6.7, 40.0]
# The step is 3 / m: 3 for m = 1; for m = 254 the range ends at 0.01.
EVERY_SOURCE = [Encoding(scale=float(np.float32(3 / m)), zero_point=m - 128) for m in range(1, 255)]


def hardswish(x):
    """Return the formula of MobileNetV3, section 5.2, in float64."""
    return x * np.clip(x + 3, 0, 6) / 6


def real(source):
    return (CODES - source.zero_point) * source.scale


def targets(source):
    """Return the chosen encoding, and one that clips, as in a residual stream."""
    return encode_hardswish(source), encode_hardswish(source, (-0.2, 0.6 * max(source.high, 0.1)))


def reference_codes(source, target):
    values = torch.from_numpy((CODES - source.zero_point).astype(np.float32))
    scaled = reference.Scaled(values, torch.tensor(source.scale, dtype=torch.float32))
    result = reference.quantize(reference.hardswish(scaled), target.scale, target.zero_point)
    return result.values.numpy().astype(int) + target.zero_point


@pytest.mark.parametrize("source", EVERY_SOURCE, ids=lambda e: f"m{e.zero_point + 128}")
def test_every_code_is_within_half_a_step_of_hardswish(source):
    """Parts 2 to 4, with the theorem's bound."""
    exact = hardswish(real(source))
    for target in targets(source):
        inside = np.clip(exact, target.low, target.high)
        found = (reference_codes(source, target) - target.zero_point) * target.scale
        assert np.abs(found - inside).max() < 0.50010 * target.scale
    chosen = encode_hardswish(source)
    assert np.abs(np.clip(exact, chosen.low, chosen.high) - exact).max() <= chosen.scale


@pytest.mark.parametrize("largest", LARGEST)
def test_inputs_below_minus_three_have_the_result_of_their_code(largest):
    """Part 1."""
    source = encode_before_hardswish(largest)
    assert source.low == pytest.approx(-3, rel=1e-7)
    below = np.linspace(-40, -3, 100)
    assert np.all(hardswish(below) == 0)
    assert hardswish(source.low) == pytest.approx(0, abs=1e-6)
    target = encode_hardswish(source)
    assert reference_codes(source, target)[0] == target.zero_point


def test_results_are_a_thousandth_of_a_step_from_ties_for_almost_every_encoding():
    """Part 5: a float table and an integer product round alike on any processor."""
    distances = []
    for source in EVERY_SOURCE:
        steps = hardswish(real(source)) / encode_hardswish(source).scale
        distances.append(np.abs(steps - np.floor(steps) - 0.5).min())
    assert min(distances) > 3e-4  # float32 is off by 1e-4 at most
    assert np.mean(np.array(distances) > 1e-3) > 0.9


ONE_HARDSWISH = """
<ir_version: 10, opset_import: ["": 20]>
one (uint8[256] codes) => (uint8[256] y)
<float s = {%.9g}, uint8 z = {%d}, float sy = {%.9g}, uint8 zy = {%d}>
{
    x = DequantizeLinear(codes, s, z)
    h = HardSwish(x)
    y = QuantizeLinear(h, sy, zy)
}
"""


def onnx_runtime_codes(source, target):
    text = ONE_HARDSWISH % (
        source.scale,
        source.zero_point + 128,
        target.scale,
        target.zero_point + 128,
    )
    model = ir.from_proto(onnx.parser.parse_model(text))
    assert IntegerHardSwish()(model).modified
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"codes": (CODES + 128).astype(np.uint8)})
    return found.astype(int) - 128


@pytest.mark.ci
def test_onnx_runtime_computes_the_reference_for_every_encoding():
    for source in EVERY_SOURCE:
        for target in targets(source):
            expected = reference_codes(source, target)
            assert np.array_equal(onnx_runtime_codes(source, target), expected), (source, target)


class HardSwish(torch.nn.Module):
    """One int8 hard-swish."""

    def __init__(self, source, target):
        super().__init__()
        self.how = [(e.scale, e.zero_point, -128, 127, torch.int8) for e in (source, target)]

    def forward(self, x):
        x = torch.nn.functional.hardswish(self.rounded(x, 0))
        return self.rounded(x, 1)

    def rounded(self, x, place):
        codes = quantized.quantize_per_tensor.default(x, *self.how[place])
        return quantized.dequantize_per_tensor.default(codes, *self.how[place])


def one_hardswish(largest):
    """Return the encodings, an input that holds all 256 codes, and the program."""
    source = encode_before_hardswish(largest)
    target = encode_hardswish(source)
    x = real(source).astype(np.float32).reshape(1, 1, 16, 16)
    with quietly():
        program = torch.export.export(HardSwish(source, target), (torch.from_numpy(x),))
    return source, target, x, program


@pytest.fixture(scope="module")
def lowered(tmp_path_factory):
    """Return the `.pte` of one hard-swish."""
    with quietly():
        from mobiledeploy.export import executorch as to_executorch

    path = tmp_path_factory.mktemp("hardswish") / "hardswish.pte"
    path.write_bytes(to_executorch.encode(one_hardswish(6.7)[3], {}))
    return path


def xnnpack_codes(graph, index, source, target):
    """Run the node of a delegate's graph with other encodings."""
    schema = bindings("backends/xnnpack/serialization/schema.fbs")
    graph = schema.XNNGraphT.InitFromPackedBuf(graph, 0)
    ends = vars(graph.xnodes[index].xnodeUnion)
    for number, encoding in ((ends["inputId"], source), (ends["outputId"], target)):
        (value,) = (
            v.xvalueUnion
            for v in graph.xvalues
            if getattr(v.xvalueUnion, "tensorValue", v.xvalueUnion).idOut == number
        )
        value.quantParams.scale, value.quantParams.zeroPoint = encoding.scale, encoding.zero_point
    operator = xnnpack_operators._cut(graph, index, "XNNHardswish", [b""])
    codes = torch.from_numpy(CODES.astype(np.int8)).reshape(operator.inputs[0][1])
    (found,) = run_program(operator.program, [codes])
    return found.numpy().ravel().astype(int)


@pytest.mark.ci
def test_xnnpack_computes_the_reference_for_every_encoding(lowered):
    (delegate,) = read_pte(lowered).delegates
    graph = bytes(split_xnnpack_payload(lowered, delegate.payload).graph)
    kinds = [operator.kind for operator in xnnpack_operators.single_operators(lowered)]
    index = kinds.index("XNNHardswish")
    for source in EVERY_SOURCE:
        for target in targets(source):
            expected = reference_codes(source, target)
            found = xnnpack_codes(graph, index, source, target)
            assert np.array_equal(found, expected), (source, target)


@pytest.mark.ci
def test_runtimes_disagree_at_scales_with_ties(lowered):
    """Shows that the tests above can fail."""
    (delegate,) = read_pte(lowered).delegates
    graph = bytes(split_xnnpack_payload(lowered, delegate.payload).graph)
    kinds = [operator.kind for operator in xnnpack_operators.single_operators(lowered)]
    different = 0
    for source in EVERY_SOURCE[20:60]:  # at scale s / 2 every other product is a tie
        for divisor in (2, 4, 6, 12):
            scale = float(np.float32(source.scale**2 / 6 * divisor))
            target = Encoding(scale=scale, zero_point=-100)
            one = onnx_runtime_codes(source, target)
            other = xnnpack_codes(graph, kinds.index("XNNHardswish"), source, target)
            different += np.count_nonzero(one != other)
    assert different > 0


@pytest.mark.ci
@pytest.mark.parametrize("format_", ["onnx", "pte"])
def test_the_exported_operator_computes_the_reference(format_, lowered, tmp_path):
    _, _, x, program = one_hardswish(6.7)
    path = lowered
    if format_ == "onnx":
        path = tmp_path / "hardswish.onnx"
        path.write_bytes(to_onnx.encode_model(networks.with_program(program)))
    reference_network = IntegerReference(networks.with_program(program))
    expected = reference_network.run({"input": x})["logits"]
    with open_runner(path) as runner:
        assert np.count_nonzero(runner.run({"input": x})["logits"] != expected) == 0


def test_in_a_residual_stream_the_range_is_that_of_the_stream():
    source = encode_before_hardswish(6.7)
    alone, shared = encode_hardswish(source), encode_hardswish(source, (-3.1, 9.0))
    assert alone.low == pytest.approx(-0.375, abs=alone.scale)
    assert shared.low == pytest.approx(encode(-3.1, 9.0).low, rel=0.03)
