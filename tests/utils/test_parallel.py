"""Work on all cores, results in order."""

import threading

import numpy as np
import pytest
import torch

from mobiledeploy.utils.threads import in_order, parts


def test_results_come_in_the_order_of_the_pieces():
    first_may_end = threading.Event()

    def work(piece):
        if piece == 0:
            first_may_end.wait(1)  # with a single worker nobody will set it
        else:
            first_may_end.set()
        return piece * piece

    assert list(in_order(work, range(20))) == [piece * piece for piece in range(20)]


def test_an_error_in_a_piece_is_raised_where_the_results_are_read():
    def work(piece):
        if piece == 3:
            raise ValueError("piece 3")
        return piece

    with pytest.raises(ValueError, match="piece 3"):
        list(in_order(work, range(10)))


def test_pieces_keep_no_gradients():
    weight = torch.ones(1, requires_grad=True)
    assert not any(in_order(lambda _: (weight * 2).requires_grad, range(3)))


@pytest.mark.parametrize(
    ("side", "count", "at_once", "sizes"),
    [
        (224, 10, 4, [4, 4, 2]),
        (224, 2, 1, [1, 1]),
        (64, 100, 4, [48, 48, 4]),
        (64, 20, 1, [12, 8]),
        (500, 3, 1, [1, 1, 1]),
        (32, 0, 4, []),
    ],
)
def test_parts_hold_as_many_pixels_whatever_the_size_of_images(side, count, at_once, sizes):
    images = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    images = np.broadcast_to(images, (count, 3, side, side))
    found = [images[part] for part in parts(images, at_once)]
    assert [len(each) for each in found] == sizes
    assert [float(image[0, 0, 0]) for each in found for image in each] == list(range(count))
