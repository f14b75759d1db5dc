"""Clustering heads: order, independence, probabilities, seeds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepclust_ext.nn import ClusterNet, MLPHead, build_network

SHAPE = (1, 8, 8)


def build(n_heads=4, *, seed=0, **options):
    trunk = build_network("tiny8", image_shape=SHAPE, width=0.25, n_heads=n_heads, seed=seed)
    return ClusterNet(trunk, SHAPE, 5, seed=seed, **options)


def random_images(n_images=6, seed=0):
    return torch.rand(n_images, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "shape"), [("resnet18", (3, 20, 20)), ("small28", (1, 28, 28)), ("tiny8", SHAPE)])
@pytest.mark.parametrize("n_heads", [1, 4])
@pytest.mark.parametrize("n_sub_heads", [1, 3])
@pytest.mark.parametrize("over", [None, 12])
@pytest.mark.parametrize("hidden", [0, 7])
def test_shapes(name, shape, n_heads, n_sub_heads, over, hidden):
    trunk = build_network(name, image_shape=shape, width=0.125, n_heads=n_heads)
    net = ClusterNet(trunk, shape, 5, n_sub_heads=n_sub_heads, over_clusters=over, hidden=hidden)
    output = net(torch.rand(4, *shape, generator=torch.Generator().manual_seed(0)))
    assert output.main.shape == (n_heads * n_sub_heads, 4, 5)
    assert net.n_heads == n_heads * n_sub_heads
    assert (output.over is None) if over is None else (output.over.shape == (n_heads * n_sub_heads, 4, over))
    assert output.embedding.shape == (4, net.feature_dims[-1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_are_probabilities_in_float32_or_wider(dtype):
    head = MLPHead(6, 5, 2).to(dtype)
    feature = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)).mul(50).to(dtype)
    probabilities, _ = head(feature)
    assert probabilities.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 9, dtype=probabilities.dtype))


def test_autocast_still_gives_float32():
    net = build(over_clusters=11)
    with torch.autocast("cpu", torch.bfloat16):
        output = net(random_images())
    assert output.main.dtype == output.over.dtype == torch.float32
    torch.testing.assert_close(output.main.sum(-1), torch.ones(4, 6))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_sub_heads_equal_separate_output_layers_on_one_hidden_layer(batch_norm):
    head = MLPHead(6, 5, 3, over_clusters=8, hidden=4, batch_norm=batch_norm).double()
    feature = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    main, over = head(feature)
    hidden = feature @ head.body[0].weight.T
    if batch_norm:
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + head.body[1].eps).sqrt()
    else:
        hidden = hidden + head.body[0].bias
    for output, heads in ((main, head.main), (over, head.over)):
        for s in range(3):
            logits = hidden.relu() @ heads.weight[s] + heads.bias[s]
            torch.testing.assert_close(output[s], logits.softmax(-1))


def test_heads_are_ordered_feature_by_feature():
    net = build(n_heads=3, n_sub_heads=2).eval()
    features = net.features(random_images())
    expected = [net.head_modules[f](features[f])[0][s] for f in range(3) for s in range(2)]
    assert torch.equal(net(random_images()).main, torch.stack(expected))


def test_sub_heads_differ():
    main = build(n_heads=1, n_sub_heads=3)(random_images()).main
    assert not torch.allclose(main[0], main[1])
    assert not torch.allclose(main[1], main[2])


def moved(parameters):
    """Whether any of the parameters got a gradient other than zero."""
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def test_gradient_of_a_head_reaches_its_own_weights_only():
    net = build(n_heads=4, n_sub_heads=2, over_clusters=11)
    for head in range(8):
        net.zero_grad(set_to_none=True)
        net(random_images()).main[head].square().sum().backward()
        feature, sub_head = divmod(head, 2)
        assert [moved(module.parameters()) for module in net.head_modules] == [i == feature for i in range(4)]
        own = net.head_modules[feature]
        for weights in (own.main.weight.grad, own.main.bias.grad):
            assert [bool(w.any()) for w in weights] == [s == sub_head for s in range(2)]
        assert not any(moved(module.over.parameters()) for module in net.head_modules)
        # Features 0 and 1 are the shared blocks', 2 and 3 the last blocks'.
        assert moved(net.trunk.shared[0].parameters())
        assert moved(net.trunk.shared[1].parameters()) == (feature >= 1)
        assert [moved(block.parameters()) for block in net.trunk.parallel] == [feature == 2, feature == 3]


def test_detaching_between_features_and_heads_stops_at_the_heads():
    net = build(over_clusters=11)
    features = [feature.detach() for feature in net.features(random_images())]
    main, over = net.heads(features, "over")
    assert main is None
    over.square().sum().backward()
    assert all(p.grad is None for p in net.trunk.parameters())
    for head in net.head_modules:
        assert all(p.grad is None for p in head.main.parameters())
        assert all(p.grad is not None for p in head.over.parameters())


def test_forward_is_features_then_heads():
    net = build(over_clusters=11).eval()
    output, features = net(random_images()), net.features(random_images())
    assert torch.equal(output.main, net.heads(features, "main")[0])
    assert torch.equal(output.over, net.heads(features, "over")[1])
    assert torch.equal(output.embedding, features[-1])


def test_seed_reproduces_and_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    first, same, other = (build(seed=seed, over_clusters=11).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["head_modules.0.main.weight"], other["head_modules.0.main.weight"])


def test_state_dict_round_trip():
    source, target = build(over_clusters=11, seed=0), build(over_clusters=11, seed=1)
    source(random_images())
    target.load_state_dict(source.state_dict())
    a, b = source.eval()(random_images(seed=2)), target.eval()(random_images(seed=2))
    assert torch.equal(a.main, b.main)
    assert torch.equal(a.over, b.over)


def test_a_network_that_returns_one_tensor():
    net = ClusterNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), SHAPE, 5, n_sub_heads=2)
    output = net(random_images())
    assert (output.main.shape, output.embedding.shape) == ((2, 6, 5), (6, 7))


@pytest.mark.parametrize(
    ("name", "value"), [("n_clusters", 0), ("n_sub_heads", 0), ("over_clusters", 0), ("hidden", -1)]
)
def test_bad_counts_are_refused(name, value):
    arguments = {"n_clusters": 5, name: value}
    with pytest.raises(ValueError, match=f"ClusterNet: '{name}' must be at least [01], got {value}"):
        ClusterNet(nn.Flatten(), SHAPE, **arguments)


@pytest.mark.parametrize("value", [2.0, "3", None, True])
def test_counts_must_be_whole_numbers(value):
    with pytest.raises(TypeError, match=f"ClusterNet: 'n_clusters' must be a whole number, got {value!r}"):
        ClusterNet(nn.Flatten(), SHAPE, value)


def test_calls_of_heads_that_cannot_be_served():
    net = build()
    features = net.features(random_images())
    with pytest.raises(ValueError, match="built with over_clusters=None"):
        net.heads(features, "over")
    with pytest.raises(ValueError, match="'which' must be 'main', 'over' or 'both', got 'all'"):
        net.heads(features, "all")
    with pytest.raises(ValueError, match="'features' must hold 4 features, got 3"):
        net.heads(features[:3])
