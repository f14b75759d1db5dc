"""JULE's networks: the paper's sizes, initial weights, the embedding and its centroids."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepclust_ext import kmeans_assign
from deepclust_ext.nn import FeatureSpace, build_jule_net, build_network, feature_dims, jule_layers

# The paper's data sets by their images, how many convolutions they have and which pool, and the size of the last map.
PAPER = {
    "coil20, coil100": ((128, 128), [True] * 4, 1250),
    "usps": ((16, 16), [True], 1800),
    "mnist": ((28, 28), [True, False], 3200),
    "umist": ((112, 92), [True] * 3, 8400),
    "frgc, cmu-pie": ((32, 32), [True] * 2, 1250),
    "youtube faces": ((55, 55), [True] * 2, 9800),
}


@pytest.mark.parametrize("name", PAPER)
def test_layers_are_the_papers(name):
    size, pools, flat = PAPER[name]
    assert jule_layers(*size) == pools
    trunk = build_network("jule", image_shape=(1, *size)).eval()
    assert trunk.top.in_features == flat
    kinds = [[type(part) for part in trunk.get_submodule(layer)] for layer in trunk.probe_layers]
    full = [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU]
    assert kinds == [[kind for kind in full if pool or kind is not nn.MaxPool2d] for pool in pools]
    assert {trunk.get_submodule(layer)[0].out_channels for layer in trunk.probe_layers} == {50}
    assert feature_dims(trunk, (1, *size)) == [160]


@pytest.mark.parametrize("size", [(5, 5), (8, 8), (11, 40), (12, 12), (13, 200), (48, 64), (96, 96), (224, 160)])
def test_other_sizes_end_near_ten_pixels(size):
    trunk = build_network("jule", image_shape=(3, *size), width=0.1, dim=7)
    assert feature_dims(trunk, (3, *size)) == [7]
    side = min(size)
    for pools in jule_layers(*size):
        side -= 4
        side = -(-side // 2) if pools else side
    assert 1 <= side <= 11
    assert side >= 4 or min(size) < 8


def test_initial_weights():
    trunk = build_network("jule", image_shape=(1, 28, 28), seed=3)
    weights = [part.weight.detach() for part in trunk.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(weights) == 3
    for weight in weights:
        assert weight.mean().abs() < 1e-3
        assert weight.std() == pytest.approx(0.01, rel=0.1)
    assert not trunk.top.bias.any()
    assert torch.equal(trunk.conv1[1].weight, torch.ones(50))
    again, other = (build_network("jule", image_shape=(1, 28, 28), seed=seed) for seed in (3, 4))
    assert torch.equal(again.top.weight, trunk.top.weight)
    assert not torch.equal(other.top.weight, trunk.top.weight)


def test_the_embedding_is_on_the_sphere_and_gradients_reach_all():
    net = build_jule_net("jule", (1, 28, 28), 3, width=0.2, dim=6, seed=0)
    views = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    z = net(views)
    assert z.shape == (5, 6)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(5))
    (z * torch.arange(6.0)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert net.probe_layers == ("trunk.conv1", "trunk.conv2")
    # Laid out for the CPU, and the same values.
    assert net.trunk.conv2[0].weight.is_contiguous(memory_format=torch.channels_last)
    plain = build_network("jule", image_shape=(1, 28, 28), width=0.2, dim=6, seed=0)
    torch.testing.assert_close(z, nn.functional.normalize(plain(views)[0], dim=1), rtol=1e-4, atol=1e-5)


def test_a_feature_of_zeros_stays_so():
    net = build_jule_net(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2), 2, width=1.0, dim=160, seed=0)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    probabilities, z = net.outputs(torch.rand(2, 1, 2, 2))
    assert not z.any()
    assert torch.isfinite(probabilities).all()


class Viewed(nn.Module):
    """A module that no channels-last images go through."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 3, 3), nn.Linear(108, 4)

    def forward(self, images):
        hidden = self.conv(images)
        return self.last(hidden.view(len(hidden), -1))


@pytest.mark.parametrize("network", [Viewed(), "tiny8"])
def test_any_network_can_be_used(network):
    net = build_jule_net(network, (1, 8, 8), 2, width=1.0, dim=160, seed=0)
    assert net(torch.rand(3, 1, 8, 8)).shape == (3, net.dim)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (1, 28, 4)}, "sides of at least 5 pixels"),
        ({"image_shape": (1, 28, 28), "width": 0.0}, "'width' must be finite and above 0"),
        ({"image_shape": (1, 28, 28), "dim": 0}, "'dim' must be at least 1"),
        ({"image_shape": (1, 28, 28), "n_heads": 2}, "'n_heads' must be 1 for 'jule'"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        build_network("jule", **options)


# Centroids of given clusters


def test_centroids_are_means_and_the_nearest_one_labels():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (50,), generator=torch.Generator().manual_seed(1))
    space = FeatureSpace(6, 3, None)
    space.settle(features, labels)
    points = features / features.norm(dim=1, keepdim=True)
    expected = torch.stack([points[labels == k].mean(0) for k in range(3)])
    torch.testing.assert_close(space.centroids, expected)
    inertia = sum((points[labels == k] - expected[k]).square().sum() for k in range(3))
    assert float(space.variance) == pytest.approx(float(inertia) / 300, rel=1e-5)
    assert torch.equal(space.probabilities(features).argmax(1), kmeans_assign(points, expected).labels)


def test_a_cluster_without_members_is_nearest_to_nothing():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]])
    space = FeatureSpace(2, 4, None)
    space.settle(features, torch.tensor([3, 3, 1]))
    directions = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    probabilities = space.probabilities(directions)
    assert set(probabilities.argmax(1).tolist()) == {1, 3}
    torch.testing.assert_close(probabilities.sum(1), torch.ones(200))
    assert not probabilities[:, [0, 2]].any()
