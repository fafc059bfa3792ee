"""Hostile requests to the native runner: it answers or ends, and leaves nothing."""

from collections import Counter
from random import Random

import pytest
from native_faults import built_folder
from onnx import TensorProto, helper

from fuzz.requests import (
    answer,
    byte_cases,
    cut_cases,
    file_cases,
    name_cases,
    problem,
    random_cases,
    seed_of,
    value_cases,
    with_file,
)
from mobiledeploy.devices.native.bundle import Bundle

pytestmark = pytest.mark.ci  # it compiles the runner

SEED = seed_of("outputs", ".onnx", sends_inputs=True)
OTHERS = (
    seed_of("bench", ".onnx", ".pte"),
    seed_of("profile", ".onnx"),
    seed_of("instructions", ".pte"),
    seed_of("load"),
)


@pytest.fixture
def endings(host_bundle, tmp_path):
    """Return a function that gives cases to the runner and counts what its answers contain."""
    argv = Bundle.open(built_folder(host_bundle)).command()

    def count(cases, *texts):
        found, counts = {}, Counter()
        for case in cases:
            got = answer(argv, case, tmp_path)
            counts.update(text for text in texts if text.encode() in got.sent)
            if wrong := problem(case, got):
                found[case.name] = wrong + got.log[-500:]
        assert found == {}
        return [counts[text] for text in texts]

    return count


def test_damaged_requests(endings):
    cases = [*byte_cases(SEED), *cut_cases(SEED, 7)]
    results, refused = endings(cases, '{"result"', "cannot read the request")
    assert results > 0  # that of the request which arrives in many parts
    assert refused > 60


def test_wrong_values_and_names(endings):
    cases = [*value_cases(SEED), *name_cases(SEED)]
    refused, unknown = endings(cases, "cannot read the request", "expected a path inside")
    assert refused > 400
    assert unknown > 20


def test_random_changes(endings):
    cases = [case for seed in (SEED, *OTHERS) for case in random_cases(seed, 30, Random(5))]
    results, refused = endings(cases, '{"result"', "cannot read the request")
    assert results > 0
    assert refused > 80


def test_damaged_samples(endings):
    name = "0/inputs.npy"
    npy = SEED.files[name]
    sizes = (f"({2**31}, 3, 32, 32)", f"({2**63}, 4)", f"({2**32}, {2**32})", "(2, -3, 32, 32)")
    shapes = (*sizes, f"({'1, ' * 15})", f"({'9' * 40})", "()", "((((", ")(")
    at = npy.index(b"(2, 3, 32, 32)")
    changed = [npy[:at] + shape.encode().ljust(45)[:45] + npy[at + 45 :] for shape in shapes]
    changed += [b"", npy[:9], npy[:60], npy[:-1], npy.replace(b"<f4", b"|O8")]
    cases = [with_file(SEED, name, data, f"{data[:110]!r}") for data in changed]
    cases += file_cases(SEED, 40, name, Random(4))
    refused, results = endings(cases, "are not a .npy file", '{"result"')
    assert refused >= len(changed)
    assert results > 0


@pytest.mark.parametrize("shape", [(2**62, 4), (1, 2**62), (1, 2**33), (1, 2**31, 2**31, 2)])
def test_networks_for_huge_inputs(shape, endings):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "huge", ends[:1], ends[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    seed = seed_of("outputs", ".onnx")
    case = with_file(seed, "0/tiny.onnx", model.SerializeToString(), "huge")
    assert endings([case], "for which there is no memory") == [1]
