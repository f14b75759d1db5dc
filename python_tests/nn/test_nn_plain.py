"""LeNet-5 and the AlexNets: layers, sizes, seeds, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepclust_ext.nn import build_network, feature_dims

CASES = {
    "lenet5": ((1, 28, 28), [6, 16], [14, 5], 84),
    "alexnet-small": ((2, 32, 32), [48, 126, 192, 192, 128], [15, 7, 7, 7, 3], 1024),
    "alexnet": ((2, 224, 224), [64, 192, 384, 256, 256], [27, 13, 13, 13, 6], 4096),
}


@pytest.mark.parametrize("name", CASES)
def test_the_stages_are_the_papers(name):
    shape, channels, sides, dim = CASES[name]
    trunk = build_network(name, image_shape=shape).eval()
    assert trunk.probe_layers == tuple(f"conv{number + 1}" for number in range(len(channels)))
    seen = []
    for layer in trunk.probe_layers:
        trunk.get_submodule(layer).register_forward_hook(lambda *parts: seen.append(parts[2].clone()))
    with torch.no_grad():
        (feature,) = trunk(torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert [tuple(output.shape[1:]) for output in seen] == [(c, s, s) for c, s in zip(channels, sides, strict=True)]
    # A stage ends in a ReLU; the feature ends before its own.
    assert all((output >= 0).all() for output in seen)
    assert feature.shape == (2, dim)
    assert (feature < 0).any()
    assert trunk.ends_before_relu


def test_lenet_has_the_size_its_layers_give():
    trunk = build_network("lenet5", image_shape=(1, 28, 28))
    assert feature_dims(trunk, (1, 28, 28)) == [84]
    weights = 25 * 6 + 25 * 6 * 16 + 400 * 120 + 120 * 84
    others = 2 * (6 + 16) + 120 + 84
    assert sum(p.numel() for p in trunk.parameters()) == weights + others
    plain = build_network("lenet5", image_shape=(1, 28, 28), batch_norm=False)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in plain.modules())


def test_the_pool_and_the_relu_commute():
    stage = build_network("lenet5", image_shape=(1, 28, 28)).conv1.eval()
    convolution, norm, pool, relu = stage
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(stage(images), pool(relu(norm(convolution(images)))))


@pytest.mark.parametrize("name", CASES)
def test_width_and_seed(name):
    shape = CASES[name][0]
    same, again, other = (build_network(name, image_shape=shape, width=0.1, seed=seed) for seed in (3, 3, 4))
    for key, value in same.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(same.conv1[0].weight, other.conv1[0].weight)
    assert feature_dims(same, shape) == [round(0.1 * CASES[name][3])]


@pytest.mark.parametrize(("name", "least"), [("lenet5", 12), ("alexnet-small", 15), ("alexnet", 63)])
def test_images_that_are_too_small_are_refused(name, least):
    channels = CASES[name][0][0]
    feature_dims(build_network(name, image_shape=(channels, least, least + 4), width=0.1), (channels, least, least + 4))
    with pytest.raises(ValueError, match=f"sides of at least {least} pixels"):
        build_network(name, image_shape=(channels, least + 4, least - 1))


def test_one_feature_is_all_there_is():
    assert len(feature_dims(build_network("lenet5", image_shape=(1, 28, 28), n_heads=1), (1, 28, 28))) == 1
    with pytest.raises(ValueError, match="'n_heads' must be 1 for 'lenet5'"):
        build_network("lenet5", image_shape=(1, 28, 28), n_heads=3)
    with pytest.raises(ValueError, match="'width' must be finite and above 0"):
        build_network("lenet5", image_shape=(1, 28, 28), width=0.0)
