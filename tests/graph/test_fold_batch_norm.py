"""BatchNorm folding keeps the function and removes every norm."""

import copy

import pytest
import torch
from networks import FAMILIES
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.graph.fold_batch_norm import fold
from mobiledeploy.models.build import create
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.network import Preprocessing, WeightsProvenance
from mobiledeploy.stages import FloatModel

EXACT = 1e-9


def as_float_model(module, spec=None):
    spec = spec or ModelSpec(family="v2")
    provenance = WeightsProvenance(source="random", origin="seed 0")
    return FloatModel(
        info=spec.network_info(provenance, Preprocessing(crop_pct=0.9), ("a", "b")),
        module=module,
    )


def network(family, **options):
    spec = ModelSpec(
        family=family, width=0.25, resolution=64, architecture=ArchitectureOptions(**options)
    )
    module = create(spec)
    randomize_batch_norm(module, seed=1)
    return as_float_model(module.double(), spec)


def images(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def randomized(*layers):
    """Return a Sequential in float64 whose norms are far from the identity."""
    module = nn.Sequential(*layers).double().eval()
    generator = torch.Generator().manual_seed(3)
    for norm in module:
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for name, tensor in norm.state_dict().items():
                if tensor.is_floating_point():
                    low = 0.1 if name == "running_var" else -1.0
                    tensor.uniform_(low, 2.0, generator=generator)
    return module


def norms_in(module):
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def largest_difference(before, after, x):
    with torch.no_grad():
        reference = before(x)
        assert float(reference.std()) > 1e-3
        return float((after(x) - reference).abs().max())


@pytest.mark.parametrize(
    ("family", "options", "folded"),
    [
        ("v1", {}, 27),
        ("v1", {"kernels_per_layer": 2, "padding": "same"}, 27),
        ("v2", {}, 52),
        ("v2", {"padding": "same"}, 52),
        ("v3-large", {}, 46),
        ("v3-small", {}, 34),
        ("v3-small", {"se_gate": "sigmoid", "dilated": True}, 52),
    ],
)
def test_the_folded_network_is_the_same_function_without_norms(family, options, folded):
    model = network(family, **options)
    result = fold(model)
    assert largest_difference(model.module, result.module, images(2, 3, 64, 64)) < EXACT
    assert norms_in(result.module) == []
    assert len(result.folded_layers) == folded
    assert all(isinstance(result.module.get_submodule(n), nn.Conv2d) for n in result.folded_layers)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_any_convolution_folds(bias, groups, eps):
    module = randomized(
        nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=groups, bias=bias),
        nn.BatchNorm2d(16, eps=eps),
    )
    result = fold(as_float_model(module)).module
    assert largest_difference(module, result, images(2, 8, 9, 9)) < EXACT


@pytest.mark.parametrize(
    ("conv", "norm", "shape"),
    [
        (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 9)),
        (nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6), (2, 4, 5, 5, 5)),
        (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), (2, 4, 5, 5)),
    ],
)
def test_other_dimensions_paddings_and_norms_without_affine_fold(conv, norm, shape):
    module = randomized(conv, norm)
    result = fold(as_float_model(module)).module
    assert largest_difference(module, result, images(*shape)) < EXACT


def test_float32_is_rounded_once_from_float64():
    module = randomized(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16)).float()
    exact = fold(as_float_model(copy.deepcopy(module).double())).module
    rounded = fold(as_float_model(module)).module
    assert rounded[0].weight.dtype == rounded[0].bias.dtype == torch.float32
    assert torch.equal(rounded[0].weight, exact[0].weight.float())
    assert torch.equal(rounded[0].bias, exact[0].bias.float())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_not_modified(family):
    model = network(family)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    fold(model)
    after = model.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_info_of_the_model_is_kept():
    model = network("v2")
    result = fold(model)
    assert result.info == model.info


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_keep_their_names(family):
    model = network(family)
    kept = dict(fold(model).module.named_parameters())
    for name, parameter in model.module.named_parameters():
        owner = model.module.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, nn.Conv2d | nn.Linear):
            assert kept[name].shape == parameter.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_the_exported_program_has_neither_norm_nor_dropout_nor_identity(family):
    result = fold(network(family))
    program = torch.export.export(result.module.float(), (torch.zeros(1, 3, 64, 64),))
    operators = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert "aten.conv2d.default" in operators
    for inert in ("batch_norm", "dropout", "identity", "alias", "clone"):
        assert not any(inert in operator for operator in operators), operators


class _Combined(nn.Module):
    """A convolution and a norm that a function combines."""

    def __init__(self, combine):
        super().__init__()
        self.combine = combine
        self.conv, self.other, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.combine(self, x, self.conv(x))


def _functional(m, _, y):
    return nn.functional.batch_norm(m.norm(y), torch.zeros(3), torch.ones(3))


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        (lambda m, _, y: m.norm(y) + y, "'conv' has other users"),
        (lambda m, x, y: m.norm(y) + m.conv(x + 1), "runs more than once"),
        (lambda m, x, y: m.norm(y) + m.norm(m.other(x)), "runs more than once"),
        (lambda m, _, y: m.norm(y + 1), "which is neither a convolution"),
        (lambda m, x, y: m.norm(y) if x.sum() > 0 else y, "cannot be traced"),
        (lambda _m, _x, y: y, "it never runs"),
        (_functional, "function call"),
    ],
)
def test_a_norm_that_cannot_be_folded_is_refused(combine, message):
    with pytest.raises(UsageError, match=message):
        fold(as_float_model(_Combined(combine).eval()))


def test_a_norm_behind_another_layer_is_refused():
    with pytest.raises(UsageError, match=r"'1'.* neither a convolution"):
        fold(as_float_model(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)).eval()))


def test_a_norm_at_the_input_or_without_statistics_is_refused():
    with pytest.raises(UsageError, match="neither a convolution"):
        fold(as_float_model(nn.Sequential(nn.BatchNorm2d(3)).eval()))
    bare = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(UsageError, match="no running statistics"):
        fold(as_float_model(bare.eval()))


@pytest.mark.parametrize(
    "head", ["batchnorm,dropout,linear:5", "linear:8:nobias,batchnorm,relu,batchnorm,linear:5"]
)
def test_norms_of_a_head_are_folded_into_its_linear_layers(head):
    options = ArchitectureOptions(head=head, rows=((16, 2),))
    spec = ModelSpec(family="v1", num_classes=5, resolution=32, architecture=options)
    module = create(spec)
    randomize_batch_norm(module, seed=1)
    provenance = WeightsProvenance(source="random", origin="seed 1")
    result = fold(FloatModel(info=spec.network_info(provenance, Preprocessing()), module=module))
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in result.module.modules())
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(result.module(images), module(images), rtol=1e-4, atol=1e-5)
