"""A network sees every image once, in order."""

import numpy as np
import pytest

from mobiledeploy.parity.batches import in_batches, run_in_batches


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("in_parallel", [True, False])
def test_results_are_in_the_order_of_the_images(count, in_parallel):
    images = np.arange(count * 3, dtype=np.float32).reshape(count, 3, 1, 1)
    sizes = []

    def run(inputs):
        sizes.append(len(inputs["input"]))
        return {"logits": inputs["input"].reshape(-1, 3) + 1}

    found = run_in_batches(run, images, "Running", in_parallel=in_parallel)
    np.testing.assert_array_equal(found, images.reshape(count, 3) + 1)
    assert sum(sizes) == count
    assert max(sizes) <= 2


def test_no_images_are_one_empty_batch():
    (batch,) = in_batches(np.zeros((0, 3, 4, 4), np.float32))
    assert batch.shape == (0, 3, 4, 4)
