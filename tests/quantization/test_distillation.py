"""Loss, batches and hold-out set of everything that is learned from the float logits."""

import numpy as np
import pytest
import torch

from mobiledeploy.quantization.distillation import (
    BATCH,
    distillation_loss,
    distillation_step,
    round_straight_through,
    shuffled_batches,
    split_hold_out,
)


def test_every_sixth_image_is_held_out():
    hold_out, training = split_hold_out(13)
    assert hold_out.tolist() == [0, 6, 12]
    assert sorted([*hold_out, *training]) == list(range(13))


def test_every_epoch_shuffles_full_batches_of_different_images():
    indices = np.arange(100, 100 + 2 * BATCH + 3)
    batches = shuffled_batches(indices, epochs=3)
    assert [len(batch) for batch in batches] == [BATCH] * 6
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        assert len(set(first) | set(second)) == 2 * BATCH
        assert set(first) | set(second) <= set(indices)
    assert set(batches[0]) != set(batches[2])
    again = shuffled_batches(indices, epochs=3)
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))


class Scaled:
    """Logits that are the mean of each channel times a learnable factor."""

    def __init__(self, factor):
        self.factor = torch.tensor(factor, requires_grad=True)

    @property
    def parameters(self):
        return [self.factor]

    def run(self, images):
        return self.factor * images.mean((2, 3))


IMAGES = np.random.default_rng(0).normal(size=(20, 3, 224, 224)).astype(np.float32)
TARGETS = torch.from_numpy(IMAGES).mean((2, 3))


def test_the_loss_is_the_squared_error_relative_to_the_targets():
    assert distillation_loss(Scaled(0.9), IMAGES, TARGETS) == pytest.approx(0.01, rel=1e-4)
    assert distillation_loss(Scaled(1.0), IMAGES, torch.zeros_like(TARGETS)) > 1e3  # not infinite


def test_a_step_lowers_the_loss():
    student = Scaled(0.5)
    adam = torch.optim.Adam(student.parameters, lr=0.1)
    distillation_step(student, adam, IMAGES, TARGETS)
    assert float(student.factor.detach()) == pytest.approx(0.6)


def test_rounding_passes_gradients_straight_through():
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    rounded = round_straight_through(x)
    assert rounded.tolist() == [0.0, 2.0]
    (3 * rounded).sum().backward()
    assert x.grad.tolist() == [3.0, 3.0]
