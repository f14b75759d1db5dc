"""The embedding network: towers, the sphere, seeds, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepclust_ext.nn import Sobel, build_embedding_net, build_network, feature_dims

OPTIONS = {"dim": 16, "width": 0.25, "seed": 3}


def random_views(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sobel", [True, False])
@pytest.mark.parametrize(
    ("network", "shape"), [("auto", (1, 8, 8)), ("auto", (3, 32, 32)), ("alexnet-small", (3, 32, 32))]
)
def test_towers_are_joined_on_the_sphere(network, shape, sobel):
    net = build_embedding_net(network, shape, 5, sobel=sobel, **OPTIONS).eval()
    net.standardise(random_views(20, *shape))
    views = random_views(4, *shape)
    probabilities, embedding = net.outputs(views)
    assert probabilities.shape == (1, 4, 5)
    assert torch.equal(embedding, net.features(views))
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))
    inputs = (views - net.pixel_mean) / net.pixel_deviation
    parts = [net.pixels(inputs)[-1], *([net.edges(Sobel()(inputs))[-1]] if sobel else [])]
    if network == "alexnet-small":
        assert any((part < 0).any() for part in parts)
        parts = [part.relu() for part in parts]
    joined = net.last(torch.cat(parts, 1))
    torch.testing.assert_close(embedding, joined / joined.norm(dim=1, keepdim=True))
    assert (net.edges is None) == (not sobel)


def test_towers_have_weights_of_their_own_and_the_seeds():
    one, same, other = (
        build_embedding_net("tiny8", (1, 8, 8), 5, sobel=True, **{**OPTIONS, "seed": seed}) for seed in (3, 3, 4)
    )
    for key, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
    assert not torch.equal(one.last.weight, other.last.weight)
    assert not torch.equal(one.pixels.shared[1][0].weight, one.edges.shared[1][0].weight)
    assert not torch.equal(one.pixels.shared[1][0].weight, other.pixels.shared[1][0].weight)
    # A seed's towers are not those of its neighbour.
    assert not torch.equal(one.edges.shared[1][0].weight, other.pixels.shared[1][0].weight)


def test_both_towers_are_trained():
    net = build_embedding_net("tiny8", (1, 8, 8), 5, sobel=True, **OPTIONS)
    net.features(random_views(6, 1, 8, 8))[:, 0].sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_what_is_refused():
    with pytest.raises(ValueError, match="'network' must be a name where 'sobel' is True"):
        build_embedding_net(nn.Flatten(), (1, 8, 8), 5, sobel=True, dim=16, width=1.0, seed=0)
    with pytest.raises(ValueError, match="'sobel' must be False for images that are neither grey nor RGB"):
        build_embedding_net("tiny8", (4, 8, 8), 5, sobel=True, **OPTIONS)
    assert build_embedding_net("tiny8", (4, 8, 8), 5, sobel=False, **OPTIONS).dim == 16


def test_resnet101_has_its_layers():
    trunk = build_network("resnet101", image_shape=(3, 16, 16), width=0.25, n_heads=1)
    assert feature_dims(trunk, (3, 16, 16)) == [4 * 128]
    stages = [*trunk.shared, *trunk.parallel]
    assert [len(stage) for stage in stages] == [3, 4, 23, 3]
    # 101 layers with weights: the stem, three a block, and the last, which is the embedding's.
    convolutions = [part for part in trunk.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) - 4 + 1 == 101
    assert [stage[-1].conv3.out_channels for stage in stages] == [64, 128, 256, 512]
