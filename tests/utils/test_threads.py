"""Parallel computation gives ordered results that do not depend on the number of cores."""

import threading

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.pipeline.build import build
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.utils.threads import batch_slices, on_one_thread, parallel_map


@pytest.fixture
def set_threads():
    """Return the setter of torch's number of threads; the former number is restored."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items():
    second_started = threading.Event()

    def work(item):
        if item == 0:
            second_started.wait(1)  # with a single worker it is never set
        else:
            second_started.set()
        return item * item

    assert list(parallel_map(work, range(20))) == [item * item for item in range(20)]


def test_an_error_is_raised_where_the_results_are_read():
    def work(item):
        if item == 3:
            raise ValueError("item 3")
        return item

    with pytest.raises(ValueError, match="item 3"):
        list(parallel_map(work, range(10)))


def test_workers_compute_without_gradients():
    weight = torch.ones(1, requires_grad=True)
    assert not any(parallel_map(lambda _: (weight * 2).requires_grad, range(3)))


@pytest.mark.parametrize(
    ("side", "count", "size", "expected"),
    [
        (224, 10, 4, [4, 4, 2]),
        (224, 2, 1, [1, 1]),
        (64, 100, 4, [48, 48, 4]),
        (64, 20, 1, [12, 8]),
        (500, 3, 1, [1, 1, 1]),
        (32, 0, 4, []),
    ],
)
def test_batches_hold_equally_many_pixels_at_any_resolution(side, count, size, expected):
    images = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    images = np.broadcast_to(images, (count, 3, side, side))
    batches = [images[batch] for batch in batch_slices(images, size)]
    assert [len(batch) for batch in batches] == expected
    assert [float(image[0, 0, 0]) for batch in batches for image in batch] == list(range(count))


@pytest.mark.ci
def test_the_int8_network_does_not_depend_on_the_number_of_threads(set_threads):
    images = networks.calibration(128)
    digests = set()
    for count in (1, 3):
        set_threads(count)
        quantized = quantize(equalize(networks.folded("v2", 128), images), images)
        assert torch.get_num_threads() == count
        digests.add(quantized.encodings_digest)
    assert len(digests) == 1


def test_random_weights_do_not_depend_on_the_number_of_threads(set_threads):
    weights = []
    for count in (1, 3):
        set_threads(count)
        model = build("v2", weights="random", width=0.25, resolution=32, num_classes=10)
        weights.append([tensor.numpy().tobytes() for tensor in model.module.state_dict().values()])
    assert weights[0] == weights[1]


def test_the_number_of_threads_is_restored_after_an_error(set_threads):
    set_threads(2)

    @on_one_thread
    def fail():
        assert torch.get_num_threads() == 1
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - raised above
        fail()
    assert torch.get_num_threads() == 2
