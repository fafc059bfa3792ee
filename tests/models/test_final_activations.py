"""Softmax, sigmoid and L2 normalisation at the end of a module, however they are called."""

import copy

import networks
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mobiledeploy.models.final_activations import final_activations, without_final_activations

IMAGE = torch.from_numpy(networks.pixels(8, count=1))


class Network(nn.Module):
    """A map (N, 4, 8, 8) or its means (N, 4), and what a test does with it."""

    def __init__(self, end, *, is_map=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.end, self.is_map = end, is_map

    def forward(self, x):
        x = self.conv(x)
        return self.end(x if self.is_map else x.mean([2, 3]))


def ending(end, **options):
    torch.manual_seed(0)
    return Network(end, **options).eval()


def found(end, **options):
    return final_activations(ending(end, **options), IMAGE)


@pytest.mark.parametrize(
    ("end", "activation"),
    [
        (lambda x: F.softmax(x, 1), "softmax"),
        (lambda x: F.softmax(input=x, dim=-1), "softmax"),
        (lambda x: x.softmax(dim=1), "softmax"),
        (lambda x: torch.softmax(x, -1), "softmax"),
        (nn.Softmax(1), "softmax"),
        (torch.sigmoid, "sigmoid"),
        (nn.Sigmoid(), "sigmoid"),
        (lambda x: x.sigmoid(), "sigmoid"),
        (F.normalize, "normalize"),
        (lambda x: F.normalize(x, p=2, dim=-1), "normalize"),
        (lambda x: x / x.norm(dim=1, keepdim=True), "normalize"),
        (lambda x: x / x.norm(2, -1, True), "normalize"),
        (lambda x: x.div(torch.linalg.norm(x, dim=1, keepdim=True).clamp(min=1e-8)), "normalize"),
        (lambda x: x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-12), "normalize"),
        (lambda x: x / x.norm(dim=1, keepdim=True).expand_as(x), "normalize"),
        (lambda x: x, "none"),
        (lambda x: F.softmax(x, 0), "none"),  # over the images of a batch
        (lambda x: F.normalize(x, p=1), "none"),
        (lambda x: F.normalize(x, eps=0.1), "none"),
        (lambda x: x / x.norm(1, dim=1, keepdim=True), "none"),
        (lambda x: x / (x.norm(dim=1, keepdim=True) + 0.1), "none"),
        (lambda x: x / x.norm(dim=1, keepdim=True).clamp(max=1e-7), "none"),
        (lambda x: (x + 1) / x.norm(dim=1, keepdim=True), "none"),
        (lambda x: F.log_softmax(x, 1), "none"),
        (lambda x: 2 * torch.sigmoid(x), "none"),
        (lambda x: F.softmax(x, 1)[:, :2], "none"),
    ],
)
def test_the_activation_of_an_output_is_found(end, activation):
    module = ending(end)
    assert final_activations(module, IMAGE) == (activation,)
    with torch.no_grad():
        whole, shortened = module(IMAGE), without_final_activations(module)(IMAGE)
        logits = module.conv(IMAGE).mean([2, 3])
    torch.testing.assert_close(shortened, whole if activation == "none" else logits)


def test_the_classes_of_a_map_are_its_channels():
    assert found(lambda x: x.softmax(1), is_map=True) == ("softmax",)
    assert found(lambda x: x.softmax(-1), is_map=True) == ("none",)
    assert found(lambda x: x.flatten(2).softmax(-1), is_map=True) == ("softmax",)
    assert found(F.normalize, is_map=True) == ("normalize",)


def test_every_output_has_its_own():
    ends = {"one": lambda x: x, "two": torch.sigmoid, "three": F.normalize}
    module = ending(lambda x: {name: end(x) for name, end in ends.items()})
    assert final_activations(module, IMAGE) == ("none", "sigmoid", "normalize")
    shortened = without_final_activations(module)(IMAGE)
    assert list(shortened) == list(ends)
    assert all(torch.equal(each, shortened["one"]) for each in shortened.values())


def test_an_activation_inside_stays():
    shortened = without_final_activations(ending(lambda x: F.softmax(x.softmax(1) * 3, 1)))
    with torch.no_grad():
        logits = shortened.conv(IMAGE).mean([2, 3])
        torch.testing.assert_close(shortened(IMAGE), logits.softmax(1) * 3)


def test_the_module_itself_stays_as_it_is_and_shares_its_layers():
    module = ending(nn.Softmax(1))
    shortened = without_final_activations(module)
    assert type(module) is Network
    assert shortened.conv is module.conv
    assert [name for name, _ in shortened.named_modules()] == ["", "conv", "end"]
    assert module(IMAGE).sum().item() == pytest.approx(1)
    assert copy.deepcopy(shortened)(IMAGE).sum().item() != pytest.approx(1)
