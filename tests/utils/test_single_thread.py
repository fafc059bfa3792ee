"""One network from one command, on however many cores."""

import networks
import pytest
import torch

from mobiledeploy.pipeline.build import build
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.utils.threads import on_one_thread


@pytest.fixture
def threads():
    """Set torch's number of threads; the former one comes back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_the_int8_network_does_not_depend_on_the_number_of_threads(threads):
    images = networks.calibration(128)
    digests = set()
    for count in (1, 3):
        threads(count)
        quantized = quantize(equalize(networks.folded("v2", 128), images), images)
        assert torch.get_num_threads() == count
        digests.add(quantized.encodings_digest)
    assert len(digests) == 1


def test_random_weights_do_not_depend_on_the_number_of_threads(threads):
    weights = []
    for count in (1, 3):
        threads(count)
        model = build("v2", weights="random", width=0.25, resolution=32, num_classes=10)
        weights.append([tensor.numpy().tobytes() for tensor in model.module.state_dict().values()])
    assert weights[0] == weights[1]


def test_the_number_of_threads_comes_back_after_an_error_too(threads):
    threads(2)

    @on_one_thread
    def fail():
        assert torch.get_num_threads() == 1
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - raised above
        fail()
    assert torch.get_num_threads() == 2
