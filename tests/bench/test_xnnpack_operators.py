"""The operators that are cut out of a `.pte` compute the network."""

import math

import networks
import numpy as np
import pytest
import torch
from xnnpack_programs import run_program

from mobiledeploy.bench.xnnpack_operators import (
    as_program,
    delegate_graphs,
    read_graph,
    single_operators,
)
from mobiledeploy.errors import ArtifactError
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.utils.quiet import quietly


@pytest.mark.ci
def test_running_all_operators_in_order_gives_the_network_s_output(exported_to):
    """This needs the right weights, encodings, flags and order."""
    artifact = exported_to("pte", "v3-small", 64)
    image = networks.pixels(64, count=1, seed=3)
    with open_runner(artifact.path) as runner:
        expected = runner.run({"input": image})["logits"]
    operators = list(single_operators(artifact.path))
    values = {operators[0].reads[0]: torch.from_numpy(image)}
    for operator in operators:
        results = run_program(operator.program, [values[number] for number in operator.reads])
        values |= dict(zip(operator.writes, results, strict=True))
    (last,) = operators[-1].writes
    np.testing.assert_array_equal(values[last].numpy(), expected)


@pytest.mark.ci
def test_a_delegate_as_a_program_of_its_own_gives_the_network_s_output(exported_to, tmp_path):
    artifact = exported_to("pte", "v3-small", 64)
    image = networks.pixels(64, count=1, seed=3)
    ((graph, constants),) = delegate_graphs(artifact.path)
    path = tmp_path / "again.pte"
    path.write_bytes(as_program(read_graph(graph), constants))
    with open_runner(artifact.path) as one, open_runner(path) as other:
        logits = [runner.run({"input": image})["logits"] for runner in (one, other)]
    assert logits[0].std() > 0
    np.testing.assert_array_equal(*logits)


def test_inputs_of_an_operator_are_not_copied(exported_to, tmp_path):
    """The runtime would copy them before each run, and the copy would be timed."""
    artifact = exported_to("pte", "v3-small", 64)
    pooling = next(o for o in single_operators(artifact.path) if "Pooling" in o.kind)
    ((_, shape),) = pooling.inputs
    (path := tmp_path / "pooling.pte").write_bytes(pooling.program)
    assert inspect_artifact(path).planned_memory_bytes < math.prod(shape)


def test_half_precision_cannot_be_profiled(tmp_path):
    """XNNPACK computes it, but the programs of single operators cannot take it as input."""
    with quietly():
        from mobiledeploy.export import executorch as to_executorch

    module = torch.nn.Conv2d(3, 4, 3).half().eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 8, 8, dtype=torch.half),))
    path = tmp_path / "half.pte"
    path.write_bytes(to_executorch.encode(program, {}))
    with pytest.raises(ArtifactError, match=r"datatype 2; .* float32"):
        list(single_operators(path))
