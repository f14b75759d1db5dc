"""Layers of a frozen network: which, their features, and linear probes of them by SGD."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deepclust_ext.evaluate import layer_features, layer_names, probe_layers, sgd_probe
from deepclust_ext.evaluate.layer_probes import _descend, _logits, _scaling
from deepclust_ext.nn import build_network


class Residual(nn.Module):
    """A network whose ReLU runs twice, with a layer that never runs and a flat one."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.unused, self.flat = nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Flatten()

    def forward(self, images):
        hidden = self.relu(self.conv1(images))
        return self.flat(self.relu(hidden + self.conv2(hidden)))


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
            nn.MaxPool2d(2),
            nn.Sequential(nn.Conv2d(6, 8, 3), nn.Dropout(0.5)),
        )
    # Statistics far from any batch's own, so that training mode shows.
    built[0][1].running_mean.fill_(0.3)
    built[0][1].running_var.fill_(2.0)
    return built


@pytest.fixture
def images(generator):
    return torch.randint(0, 256, (23, 1, 14, 14), generator=generator).to(torch.uint8)


def n_hooks(network):
    return sum(len(part._forward_hooks) for part in network.modules())


# Names


def test_a_relu_belongs_to_its_convolution():
    shared = nn.ReLU()
    network = nn.Sequential()
    network.add_module("plain", nn.Conv2d(1, 2, 1))
    network.add_module("pool", nn.MaxPool2d(1))
    network.add_module("far", nn.ReLU())
    network.add_module("block", nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU()))
    network.add_module("bare", nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)))
    network.add_module("outside", nn.ReLU())
    network.add_module("shared", nn.Sequential(nn.Conv2d(2, 2, 1), shared, nn.Conv2d(2, 2, 1), shared))
    assert layer_names(network) == ["plain", "block.2", "bare.1", "bare.2", "shared.0", "shared.2"]
    assert layer_features(network, torch.zeros(1, 1, 4, 4), layer_names(network)).keys() == set(layer_names(network))


def test_outside_of_a_sequential_the_convolution_itself_counts():
    assert layer_names(Residual()) == ["conv1", "conv2", "unused"]


def test_names_of_our_networks():
    trunk = build_network("small28", image_shape=(1, 20, 20), n_heads=2)
    assert layer_names(trunk) == ["stem.2", "shared.0.0.2", "parallel.0.0.2"]


def test_a_network_may_name_its_layers(network):
    network.probe_layers = ("2.0", "0")
    assert layer_names(network) == ["2.0", "0"]
    network.probe_layers = ("conv9",)
    with pytest.raises(ValueError, match=r"layer_names: 'probe_layers' of the network must hold .* got 'conv9'"):
        layer_names(network)


def test_no_convolution_is_said():
    with pytest.raises(ValueError, match=r"layer_names: 'network' must hold an nn\.Conv2d .* got Sequential"):
        layer_names(nn.Sequential(nn.Linear(2, 2)))


# Features


def test_features_are_the_layers_outputs(network, images):
    names = ["2", "0.0", "0.2"]
    found = layer_features(network, images, names, batch_size=5)
    assert list(found) == names
    network.eval()
    with torch.no_grad():
        x = images.float() / 255
        convolved = network[0][0](x)
        rectified = F.relu(network[0][1](convolved.clone()))
        last = network[2](network[1](rectified))
    for name, expected in zip(names, (last, convolved, rectified), strict=True):
        assert found[name].shape == (23, expected[0].numel())
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], expected.flatten(1))
    # What follows in place must not have touched it.
    assert (found["0.0"] < 0).any()


def test_batches_do_not_matter_and_floats_are_taken(network, images):
    one = layer_features(network, images, ["2"])["2"]
    torch.testing.assert_close(layer_features(network, images, ["2"], batch_size=7)["2"], one)
    torch.testing.assert_close(layer_features(network, images.double() / 255, ["2"])["2"], one)
    assert not one.is_inference()


def test_other_dtypes_of_a_network(network, images):
    half = layer_features(network.bfloat16(), images, ["0.2"])["0.2"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, layer_features(network.float(), images, ["0.2"])["0.2"], atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("size", "max_features", "pooled"),
    [
        ((12, 12), 6 * 144, (12, 12)),
        ((12, 12), 6 * 144 - 1, (11, 11)),
        ((12, 12), 6, (1, 1)),
        ((3, 12), 100, (3, 4)),
        ((3, 12), 216, (3, 12)),
    ],
)
def test_pooling_takes_the_largest_side_that_fits(network, size, max_features, pooled, generator):
    images = torch.rand(3, 1, size[0] + 2, size[1] + 2, generator=generator)
    found = layer_features(network[0], images, ["0"], max_features=max_features)["0"]
    expected = F.adaptive_avg_pool2d(network[0][0](images), pooled).flatten(1)
    assert found.shape[1] == 6 * pooled[0] * pooled[1] <= max_features
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(network, images, fails):
    network.train()
    network[0][1].eval()
    flags = [part.training for part in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    if fails:
        with pytest.raises(RuntimeError):
            layer_features(network, images.expand(-1, 2, -1, -1), ["0.2", "2"])
    else:
        layer_features(network, images, ["0.2", "2"])
    assert [part.training for part in network.modules()] == flags
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert n_hooks(network) == 0


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("conv3", r"must be names of modules \('conv1', 'conv2', 'relu', 'unused', 'flat'\), got 'conv3'"),
        ("", "must be names of modules"),
        ("relu", "must hold layers that run once a pass, got 'relu'"),
        ("unused", "must hold layers that the network runs, got 'unused'"),
        ("flat", r"must hold layers with outputs \(2, C, h, w\), got shape \(2, 100\) from 'flat'"),
    ],
)
def test_layers_that_cannot_be_read(layer, message):
    network = Residual()
    with pytest.raises(ValueError, match=f"layer_features: 'layers' {message}"):
        layer_features(network, torch.zeros(2, 1, 5, 5), ["conv1", layer])
    assert n_hooks(network) == 0
    assert network.training


def test_what_layer_features_refuses(network, images):
    with pytest.raises(TypeError, match=r"'layers' must be a sequence of names, got '0'; pass \['0'\]"):
        layer_features(network, images, "0")
    for layers in ([], ["0", "0"]):
        with pytest.raises(ValueError, match="'layers' must hold names, each once"):
            layer_features(network, images, layers)
    with pytest.raises(ValueError, match=r"'max_features' must be at least the channels of '0\.0' \(6\), got 5"):
        layer_features(network, images, ["0.0"], max_features=5)
    for argument in ("max_features", "batch_size"):
        with pytest.raises(ValueError, match=f"'{argument}' must be at least 1, got 0"):
            layer_features(network, images, ["0"], **{argument: 0})
    with pytest.raises(TypeError, match="'images' must be a Tensor, got ndarray"):
        layer_features(network, images.numpy(), ["0"])
    with pytest.raises(TypeError, match=r"'images' must be uint8 or floating point, got torch\.int64"):
        layer_features(network, images.long(), ["0"])
    with pytest.raises(
        ValueError, match=r"'images' must have shape \(N, C, H, W\), N at least 1, got \(0, 1, 14, 14\)"
    ):
        layer_features(network, images[:0], ["0"])


# Probe by SGD


def blobs(n, seed=0, n_classes=4, d=12, noise=1.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n)
    return torch.as_tensor(np.eye(n_classes, d)[y] * 3 + noise * rng.normal(size=(n, d)) + 5).float(), torch.as_tensor(
        y
    )


def fitted(x, y, seed=0, **options):
    """The probe's weights; options small enough to compare float32 step by step."""
    settings = {"epochs": 3, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.3, "batch_size": 16, **options}
    return _descend(x, y, int(y.max()) + 1, _scaling(x), seed=seed, **settings)


def test_the_descent_is_torchs_sgd_on_cross_entropy():
    x, y = blobs(70)
    z = (x - x.mean(0)) / x.std(0, correction=0) * 20 / math.sqrt(x.shape[1])
    model = nn.Linear(12, 4)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / math.sqrt(1 + 0.01 * 0.3 * t))
    order = torch.Generator().manual_seed(7)
    for _ in range(3):
        for rows in torch.randperm(70, generator=order).split(16):
            optimizer.zero_grad()
            F.cross_entropy(model(z[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    weight, bias = fitted(x, y, seed=7)
    torch.testing.assert_close(weight, model.weight.detach().T, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(bias, model.bias.detach(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(_logits(x, _scaling(x), weight, bias), model(z).detach(), atol=2e-4, rtol=1e-3)


def test_columns_are_standardised_on_the_training_rows():
    x, _ = blobs(50)
    x[:, 3] = 0.1
    mean, factor = _scaling(x)
    z = (x - mean) * factor
    assert factor[3] == 0
    assert (z[:, 3] == 0).all()
    others = torch.arange(12) != 3
    torch.testing.assert_close(z.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.square().mean(0)[others], torch.full((11,), 400 / 12))


def test_test_rows_are_scaled_as_the_training_rows():
    # Shifted test rows all look like class 1; statistics of their own would hide it.
    x, y = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), [0, 0, 1, 1]
    assert sgd_probe(x, y, x, y) == 1.0
    assert sgd_probe(x, y, x + 10, y) == 0.5
    assert sgd_probe(x, y, x[:1], y[:1]) == 1.0
    # Test rows far away must not shrink the training rows to a point.
    assert sgd_probe(x, y, torch.cat([x, torch.full((2, 1), 1e6)]), [*y, 1, 1]) == 1.0


def test_it_learns_what_is_there_and_nothing_else():
    (x, y), (asked, truth) = blobs(300), blobs(200, 1)
    assert sgd_probe(x, y, asked, truth) > 0.93
    shuffled = np.random.default_rng(0).permutation(truth.numpy())
    assert sgd_probe(x, y, asked, shuffled) < 0.4


@pytest.mark.parametrize("d", [3, 2000])
def test_the_step_is_stable_whatever_the_number_of_features(d):
    # All columns alike: the largest curvature that d standardised columns can have.
    x, y = torch.linspace(-1, 1, 200)[:, None].repeat(1, d), (torch.arange(200) >= 100).long()
    assert sgd_probe(x, y, x, y) >= 0.99
    weight, _ = fitted(x, y, epochs=20, weight_decay=1e-4)
    # Three columns or two thousand, the descent is one and the same.
    single, _ = fitted(x[:, :1], y, epochs=20, weight_decay=1e-4)
    torch.testing.assert_close(weight.sum(0) / math.sqrt(d), single.sum(0), atol=1e-3, rtol=1e-3)


def test_classes_need_not_be_contiguous():
    (x, y), (asked, truth) = blobs(120), blobs(60, 1)
    numbers = np.array([3, 40, 41, 1000])
    assert sgd_probe(x, numbers[y], asked, numbers[truth]) == sgd_probe(x, y, asked, truth)
    assert sgd_probe(x, numbers[y], asked, np.full(60, 2)) == 0.0


def test_the_seed_alone_decides():
    x, y = blobs(100, noise=3.0)
    state = torch.get_rng_state()
    first = fitted(x, y, seed=1)[0]
    torch.manual_seed(5)
    assert torch.equal(fitted(x, y, seed=1)[0], first)
    assert not torch.equal(fitted(x, y, seed=2)[0], first)
    torch.set_rng_state(state)
    sgd_probe(x, y, x, y)
    assert torch.equal(torch.get_rng_state(), state)


def test_arguments_are_left_as_they_are_and_may_be_arrays():
    (x, y), (asked, truth) = blobs(100, noise=3.0), blobs(80, 1, noise=3.0)
    before = x.clone(), asked.clone()
    found = sgd_probe(x, y, asked, truth)
    assert torch.equal(x, before[0])
    assert torch.equal(asked, before[1])
    assert sgd_probe(x.double().numpy(), y.tolist(), asked.numpy(), truth.numpy()) == found
    assert sgd_probe(x, y, asked, truth, batch_size=1000) > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "'epochs' must be at least 1, got 0"),
        ({"batch_size": 0}, "'batch_size' must be at least 1, got 0"),
        ({"lr": 0.0}, "'lr' must be finite and above 0, got 0"),
        ({"lr": math.nan}, "'lr' must be finite and above 0, got nan"),
        ({"lr": math.inf}, "'lr' must be finite and above 0, got inf"),
        ({"momentum": 1.0}, "'momentum' must be finite, at least 0 and below 1, got 1"),
        ({"weight_decay": -1e-4}, "'weight_decay' must be finite and at least 0, got -0.0001"),
        ({"seed": -1}, "'seed' must be at least 0, got -1"),
    ],
)
def test_options_out_of_range(options, message, network, images):
    x, y = blobs(23)
    with pytest.raises(ValueError, match=f"sgd_probe: {message}"):
        sgd_probe(x, y, x, y, **options)
    with pytest.raises(ValueError, match=f"probe_layers: {message}"):
        probe_layers(network, images, y, images, y, **options)


def test_what_the_probes_refuse(network, images):
    x, y = blobs(23)
    with pytest.raises(TypeError, match=r"sgd_probe: 'epochs' must be a whole number, got 2\.5"):
        sgd_probe(x, y, x, y, epochs=2.5)
    with pytest.raises(TypeError, match="sgd_probe: 'lr' must be a number, got '1'"):
        sgd_probe(x, y, x, y, lr="1")
    with pytest.raises(ValueError, match=r"sgd_probe: 'y_train' must have a label per row \(23\), got 22"):
        sgd_probe(x, y[:-1], x, y)
    with pytest.raises(ValueError, match="sgd_probe: 'y_train' must hold at least two classes, got only 3"):
        sgd_probe(x, y * 0 + 3, x, y)
    with pytest.raises(ValueError, match="sgd_probe: 'test' must be finite"):
        sgd_probe(x, y, x * math.nan, y)
    with pytest.raises(ValueError, match="sgd_probe: 'train' must hold features that float32 can standardise"):
        sgd_probe(x.double() * 1e300, y, x, y)
    with pytest.raises(ValueError, match="sgd_probe: 'lr' must be small enough for the weights to stay finite"):
        sgd_probe(x, y, x, y, lr=1e38)
    with pytest.raises(ValueError, match=r"probe_layers: 'y_test' must have a label per image \(23\), got 22"):
        probe_layers(network, images, y, images, y[:-1])
    with pytest.raises(TypeError, match=r"probe_layers: an option must be one of epochs, .* got 'epoch'"):
        probe_layers(network, images, y, images, y, epoch=3)


# Both


def test_probing_layers_is_features_then_probes(network, generator):
    y = torch.arange(60) % 3
    images = torch.rand(60, 1, 14, 14, generator=generator) * 0.9
    images[y == 1, :, :7] += 0.1
    images[y == 2, :, 7:] += 0.1
    train, test = slice(0, 40), slice(40, 60)
    found = probe_layers(network, images[train], y[train], images[test], y[test], epochs=5, max_features=200, seed=3)
    assert list(found) == ["0.2", "2.0"]
    for name, accuracy in found.items():
        x = layer_features(network, images, [name], max_features=200)[name]
        assert accuracy == sgd_probe(x[train], y[train], x[test], y[test], epochs=5, seed=3)
    chosen = probe_layers(network, images[train], y[train], images[test], y[test], layers=["2"], max_features=200)
    assert list(chosen) == ["2"]
    with torch.device("meta"):  # a default device that a caller has set moves nothing
        again = probe_layers(network, images[train], y[train], images[test], y[test], layers=["2"], max_features=200)
    assert again == chosen
    assert network.training


@pytest.mark.parametrize("call", [layer_names, lambda network: layer_features(network, torch.ones(1, 1, 4, 4), ["0"])])
def test_a_network_must_be_a_module(call):
    with pytest.raises(TypeError, match=r"'network' must be a torch\.nn\.Module, got str"):
        call("resnet")
