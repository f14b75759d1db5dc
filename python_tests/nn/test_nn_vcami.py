"""VCAMI's networks: what each returns, the bounds of the variances, half precision, and labels by Bayes' rule."""

from __future__ import annotations

import pytest
import torch
from torch import distributions, nn

from deepclust_ext.nn import build_network, build_vcami_net
from deepclust_ext.nn.vcami import LOG_VARIANCE, DotEmbedding, GlobalScore, LocalScore


def net(network="tiny8", shape=(1, 8, 8), **options):
    return build_vcami_net(network, shape, 3, **{"latent": 5, "units": 6, "hidden": 7, "width": 0.25, **options})


@pytest.mark.parametrize(
    ("network", "shape", "maps"),
    [
        ("auto", (1, 8, 8), (32, 4, 4)),
        ("auto", (1, 20, 20), (12, 5, 5)),
        ("auto", (3, 32, 32), (12, 8, 8)),
        ("resnet18", (3, 32, 32), (64, 8, 8)),
        ("auto", (3, 64, 64), (64, 4, 4)),
    ],
)
def test_shapes(network, shape, maps):
    built = net(network, shape).eval()
    views = torch.rand(4, *shape)
    encoded = built.encode(views)
    assert encoded.maps.shape == (4, *maps)
    assert encoded.mean.shape == encoded.log_variance.shape == (4, 5)
    probabilities, means = built.outputs(views)
    assert probabilities.shape == (1, 4, 3)
    torch.testing.assert_close(probabilities.sum(2), torch.ones(1, 4))
    assert torch.equal(means, encoded.mean)
    assert torch.equal(built.features(views), means)


def test_the_feature_is_that_of_the_trunk():
    trunk = build_network("tiny8", image_shape=(1, 8, 8), n_heads=1).eval()
    views = torch.rand(4, 1, 8, 8)
    assert torch.equal(trunk.map_and_feature(views)[1], trunk(views)[0])


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)

    def forward(self, images):
        maps = self.layer(images)
        return maps, maps.mean((2, 3))


def test_any_module_with_a_map_and_a_feature():
    assert net(Pair(), width=1.0).encode(torch.rand(2, 1, 8, 8)).maps.shape == (2, 4, 6, 6)
    for wrong in (nn.Flatten(), nn.Sequential(nn.Conv2d(1, 2, 3))):
        with pytest.raises(ValueError, match=r"'trunk' must map images to a pair of a map \(B, C, h, w\)"):
            net(wrong, width=1.0)
    with pytest.raises(ValueError, match="'trunk' must map images to a pair"):
        net("lenet5", (1, 28, 28), width=1.0)


def test_the_log_variance_is_clamped():
    built = net()
    for extreme in (-1e4, 1e4):
        nn.init.constant_(built.to_log_variance.bias, extreme)
        encoded = built.encode(torch.rand(4, 1, 8, 8))
        assert LOG_VARIANCE[0] <= encoded.log_variance.min() <= encoded.log_variance.max() <= LOG_VARIANCE[1]
        nn.init.constant_(built.prior_log_variances, extreme)
        assert LOG_VARIANCE[0] <= built.mixtures()[1].min() <= built.mixtures()[1].max() <= LOG_VARIANCE[1]


def test_the_means_start_apart():
    means = net().prior_means
    assert torch.pdist(means[0]).min() > 0.5


@pytest.mark.parametrize("score", ["dot", "concat"])
def test_half_precision_keeps_float32_where_it_counts(score):
    built = net(score=score)
    with torch.autocast("cpu", torch.bfloat16):
        encoded = built.encode(torch.rand(4, 1, 8, 8))
        probabilities, _ = built.classify(encoded.mean)
    assert encoded.mean.dtype == encoded.log_variance.dtype == probabilities.dtype == torch.float32


def test_discriminators_score_each_pair_as_their_layers_joined():
    torch.manual_seed(0)
    maps, codes, others = torch.rand(5, 2, 3, 3), torch.rand(5, 4), torch.tensor([1, 2, 3, 4, 0])
    globally, locally = GlobalScore(18, 4, 6), LocalScore(2, 4, 6)

    def joined(part, inputs, code):
        weight = torch.cat([part.of_maps.weight, part.of_codes.weight], 1)
        return part.last(torch.cat([inputs, code], -1) @ weight.T + part.of_maps.bias).squeeze(-1)

    for i in range(5):
        for found, code in zip(globally(maps, codes, others), (codes[i], codes[others[i]]), strict=True):
            torch.testing.assert_close(found[i], joined(globally, maps[i].flatten(), code))
        for found, code in zip(locally(maps, codes, others), (codes[i], codes[others[i]]), strict=True):
            assert found.shape == (5, 9)
            torch.testing.assert_close(found[i, 7], joined(locally, maps[i, :, 2, 1], code))
    embedded, places = DotEmbedding(2, 4, 6)(maps, codes)
    assert (embedded.shape, places.shape) == ((5, 6), (5, 9, 6))


def test_labels_by_bayes_rule():
    built = net(posterior="vade")
    assert built.classifier is None
    with torch.no_grad():
        built.prior_log_variances.copy_(torch.randn(1, 3, 5))
    codes = torch.randn(6, 5)
    normal = distributions.Normal(built.prior_means, (0.5 * built.prior_log_variances).exp())
    want = normal.log_prob(codes[:, None]).sum(2).softmax(1)
    torch.testing.assert_close(built.classify(codes)[0], want[None], rtol=1e-5, atol=1e-6)
    far = built.classify(1e3 * codes)[0]
    assert far.isfinite().all()
    torch.testing.assert_close(far.sum(2), torch.ones(1, 6))


def test_the_mixture_starts_where_the_clusters_are():
    built = net(n_classifiers=2)
    drawn = built.prior_means.detach().clone()
    means = torch.tensor([[0.0] * 5, [2.0] * 5, [9.0] * 5, [9.0] * 5])
    variances = torch.tensor([[0.5] * 5, [1.5] * 5, [1e-9] * 5, [1e-9] * 5])
    built.start_mixture(1, torch.tensor([0, 0, 1, 1]), means, variances, torch.tensor([2, 0, 1]))
    assert torch.equal(built.prior_means[1], torch.stack([means[2], drawn[1, 1], torch.ones(5)]))
    assert torch.equal(built.prior_means[0], drawn[0])
    assert torch.allclose(built.mixtures()[1][1, 2].exp(), torch.full((5,), 2.0))
    assert (built.mixtures()[1][1, 0] == LOG_VARIANCE[0]).all()


def test_several_classifiers_and_their_twins():
    built = net(n_classifiers=4, over_clusters=9)
    main, over = built.classify(torch.randn(6, 5))
    assert (main.shape, over.shape) == ((4, 6, 3), (4, 6, 9))
    assert built.outputs(torch.rand(6, 1, 8, 8))[0].shape == (4, 6, 3)


def test_labels_by_the_nearest_centroid():
    built = net().eval()
    views = torch.rand(6, 1, 8, 8)
    means = built.features(views).detach()
    built.centroids.copy_(means[:3])
    built.variance.fill_(0.1)
    probabilities = built.outputs(views)[0]
    assert probabilities[0, :3].argmax(1).tolist() == [0, 1, 2]
    torch.testing.assert_close(probabilities.sum(2), torch.ones(1, 6))


def test_the_seed_draws_the_weights_and_nothing_else():
    before = torch.random.get_rng_state()
    first, again, other = (net(seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["to_mean.weight"], other["to_mean.weight"])
