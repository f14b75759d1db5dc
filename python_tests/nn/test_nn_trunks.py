"""Trunks and the registry: shapes, what shares what, seeds, and which networks are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepclust_ext.nn import BranchedTrunk, build_network, feature_dims, resnet18_trunk, small28_trunk

IMAGES = {"resnet18": (3, 20, 20), "small28": (1, 28, 28), "tiny8": (1, 8, 8)}
CHANNELS = {"resnet18": (64, 128, 256, 512), "small28": (48, 96), "tiny8": (64, 128, 128)}


def random_images(shape, n_images=3, seed=0):
    return torch.rand(n_images, *shape, generator=torch.Generator().manual_seed(seed))


def dims_of(name, positions, n_last):
    """Feature widths: the shared blocks at `positions`, then the last block's `n_last` times."""
    *shared, last = CHANNELS[name]
    sides = (7, 3) if name == "small28" else (1, 1, 1, 1)  # small28 keeps its pixels
    last_dim = last * sides[-1] ** 2
    return [shared[i] * sides[i] ** 2 for i in positions] + [last_dim] * n_last


def paths_of(trunk):
    """The parameters of the stem and of every block, by name."""
    parts = {"stem": trunk.stem}
    parts.update({f"shared{i}": block for i, block in enumerate(trunk.shared)})
    parts.update({f"parallel{i}": block for i, block in enumerate(trunk.parallel)})
    return {name: list(part.parameters()) for name, part in parts.items()}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("n_heads", [1, 2, 3, 4, 8])
def test_dims_are_shared_blocks_then_copies_of_the_last(name, n_heads):
    trunk = build_network(name, image_shape=IMAGES[name], n_heads=n_heads)
    n_shared = len(CHANNELS[name]) - 1
    n_early = min(n_shared, n_heads - 1)
    expected = dims_of(name, range(n_shared - n_early, n_shared), n_heads - n_early)
    assert feature_dims(trunk, IMAGES[name]) == expected


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("n_early", [0, 1, 2])
def test_early_heads_are_counted_from_the_deepest_shared_block(name, n_early):
    n_shared = len(CHANNELS[name]) - 1
    n_early = min(n_early, n_shared)
    trunk = build_network(name, image_shape=IMAGES[name], n_heads=4, n_early=n_early)
    expected = dims_of(name, range(n_shared - n_early, n_shared), 4 - n_early)
    assert feature_dims(trunk, IMAGES[name]) == expected


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (1, 28, 28)),
        ("resnet18", (3, 32, 32)),
        ("resnet18", (3, 64, 64)),
        ("resnet18", (2, 96, 80)),
        ("small28", (1, 20, 20)),
        ("small28", (3, 32, 32)),
        ("small28", (1, 8, 8)),
        ("small28", (2, 27, 29)),
        ("small28-strided", (3, 20, 20)),
        ("small28-strided", (1, 8, 8)),
        ("tiny8", (1, 6, 6)),
        ("tiny8", (3, 11, 13)),
        ("tiny8", (1, 1, 1)),
    ],
)
def test_features_of_other_image_sizes(name, shape):
    trunk = build_network(name, image_shape=shape, width=0.125)
    features = trunk(random_images(shape))
    assert [tuple(feature.shape) for feature in features] == [(3, d) for d in feature_dims(trunk, shape)]
    assert all(feature.isfinite().all() for feature in features)


def test_width_doubles_as_for_stl10():
    trunk = resnet18_trunk((3, 64, 64), width=2.0, n_heads=4)
    assert next(m for m in trunk.modules() if isinstance(m, nn.Conv2d)).out_channels == 128
    assert feature_dims(trunk, (3, 64, 64)) == [128, 256, 512, 1024]


def test_resnet_has_resnet18s_layers_and_the_papers_repeated_stage():
    def weighted_layers(module):
        return sum(isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1) for m in module.modules())

    trunk = resnet18_trunk((3, 20, 20), width=0.125, n_heads=8)
    assert [weighted_layers(block) for block in trunk.shared] == [4, 4, 4]
    assert [weighted_layers(block) for block in trunk.parallel] == [4] * 5
    assert weighted_layers(trunk.stem) == 1


@pytest.mark.parametrize(("side", "stem_side"), [(20, 20), (32, 32), (64, 16), (96, 24)])
def test_stem_resolution(side, stem_side):
    trunk = resnet18_trunk((3, side, side), width=0.125)
    assert trunk.stem(random_images((3, side, side))).shape[2:] == (stem_side, stem_side)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("resnet18", [20, 20, 10, 5, 3]),
        ("small28", [14, 7, 3]),
        ("small28-strided", [14, 7, 4]),
        ("tiny8", [8, 4, 4, 2]),
    ],
)
def test_resolution_after_every_block(name, sides):
    shape = IMAGES[name.removesuffix("-strided")]
    trunk = build_network(name, image_shape=shape, width=0.125)
    hidden = [trunk.stem(random_images(shape))]
    for block in trunk.shared:
        hidden.append(block(hidden[-1]))
    hidden.append(trunk.parallel[-1](hidden[-1]))
    assert [h.shape[2] for h in hidden] == sides


@pytest.mark.parametrize("name", IMAGES)
def test_a_feature_is_its_blocks_pixels_or_their_mean(name):
    trunk = build_network(name, image_shape=IMAGES[name], width=0.25).eval()
    images = random_images(IMAGES[name])
    hidden = trunk.stem(images)
    expected = []
    for block in trunk.shared:
        hidden = block(hidden)
        expected.append(hidden)
    expected.extend(block(hidden) for block in trunk.parallel)
    assert trunk.flatten == (name == "small28")
    expected = [h.flatten(1) if trunk.flatten else h.flatten(2).mean(2) for h in expected]
    for feature, reference in zip(trunk(images), expected, strict=True):
        torch.testing.assert_close(feature, reference)


@pytest.mark.parametrize("name", IMAGES)
def test_gradient_of_a_feature_reaches_its_path_only(name):
    # Not 0.125: oneDNN's weight gradient of a strided 1 x 1 convolution of 8 channels, three images and two threads or
    # more writes beyond its memory (torch 2.14, AVX-512), and the process aborts.
    trunk = build_network(name, image_shape=IMAGES[name], width=0.25, n_heads=5)
    n_shared = len(trunk.shared)
    for position in range(5):
        trunk.zero_grad(set_to_none=True)
        trunk(random_images(IMAGES[name]))[position].square().sum().backward()
        reached = {path for path, ps in paths_of(trunk).items() if all(p.grad is not None for p in ps)}
        touched = {path for path, ps in paths_of(trunk).items() if any(p.grad is not None for p in ps)}
        expected = {"stem"} | {f"shared{i}" for i in range(min(position + 1, n_shared))}
        if position >= n_shared:
            expected.add(f"parallel{position - n_shared}")
        assert reached == touched == expected


def test_last_blocks_start_from_different_weights():
    trunk = small28_trunk((1, 28, 28), n_heads=4)
    first, second = (block[0][0].weight for block in trunk.parallel[:2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", IMAGES)
def test_seed_reproduces_and_the_global_generator_is_untouched(name):
    before = torch.random.get_rng_state()
    first, same, other = (
        build_network(name, image_shape=IMAGES[name], width=0.125, seed=seed).state_dict() for seed in (3, 3, 4)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", IMAGES)
def test_state_dict_round_trip(name):
    source = build_network(name, image_shape=IMAGES[name], width=0.125, seed=0)
    source(random_images(IMAGES[name]))  # moves the running statistics
    target = build_network(name, image_shape=IMAGES[name], width=0.125, seed=1)
    target.load_state_dict(source.state_dict())
    images = random_images(IMAGES[name], seed=5)
    for a, b in zip(source.eval()(images), target.eval()(images), strict=True):
        assert torch.equal(a, b)


def test_any_memory_layout_gives_the_same_features():
    trunk = small28_trunk((3, 28, 28)).eval()
    images = random_images((3, 28, 28))
    strided = images.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    for a, b in zip(trunk(images), trunk(strided), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((1, 8, 8), [64, 128, 128, 128]),
        ((3, 12, 12), [64, 128, 128, 128]),
        ((1, 13, 13), [48 * 9, 96, 96]),
        ((3, 32, 32), [48 * 64, 96 * 16, 96 * 16]),
        ((1, 33, 33), [64, 128, 256, *[512] * 5]),
    ],
)
def test_auto_chooses_by_image_shape(shape, dims):
    assert feature_dims(build_network("auto", image_shape=shape), shape) == dims


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'network' must be one of auto, alexnet, .*, resnet18, .* got 'resnet50'"):
        build_network("resnet50", image_shape=(3, 32, 32))


@pytest.mark.parametrize("shape", [(28, 28), (0, 28, 28), (1, 28, 28, 1), (1, 28.5, 28), "abc", None])
def test_bad_image_shape_is_refused(shape):
    with pytest.raises(ValueError, match="build_network: 'image_shape' must be"):
        build_network("auto", image_shape=shape)


@pytest.mark.parametrize("builder", IMAGES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 0}, "'n_heads' must be at least 1, got 0"),
        ({"n_heads": 2, "n_early": 2}, "'n_early' must be between 0 and 1 .* got 2"),
        ({"n_heads": 8, "n_early": 4}, "'n_early' must be between 0 and [123] .* got 4"),
        ({"n_early": -1}, "'n_early' must be between"),
        ({"width": 0.0}, "'width' must be finite and above 0, got 0.0"),
        ({"width": float("nan")}, "'width' must be finite and above 0, got nan"),
        ({"width": float("inf")}, "'width' must be finite and above 0, got inf"),
        ({"width": "1"}, "'width' must be a number, got '1'"),
    ],
)
def test_bad_options_are_refused(builder, options, message):
    with pytest.raises((TypeError, ValueError), match=f"{builder}_trunk: {message}"):
        build_network(builder, image_shape=IMAGES[builder], **options)


class Returns(nn.Module):
    """A network that returns what a function of its images says."""

    def __init__(self, output):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout()
        self.output = output

    def forward(self, images):
        return self.output(self.drop(self.norm(images)))


def pooled(images):
    return images.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("output", "dims"),
    [
        (lambda x: [pooled(x), x.flatten(1)], [1, 16]),
        (lambda x: (pooled(x),), [1]),
        (lambda x: x.flatten(1), [16]),
    ],
)
def test_a_module_is_used_as_is(output, dims):
    module = Returns(output)
    assert build_network(module, image_shape=(1, 4, 4)) is module
    assert feature_dims(module, (1, 4, 4)) == dims


def test_the_dry_run_leaves_no_trace():
    module = Returns(pooled)
    module.norm.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    rng = torch.random.get_rng_state()
    feature_dims(module, (1, 4, 4))
    assert (module.training, module.norm.training, module.drop.training) == (True, False, True)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: {"out": pooled(x)}, "must be a list of features .* got dict"),
        (lambda x: [], "got an empty list"),
        (lambda x: None, "got NoneType"),
        (lambda x: [pooled(x), "no"], "feature 1 must be a tensor .* got str"),
        (lambda x: [x], r"feature 0 must be a floating-point tensor of shape \(2, d\).*pool or flatten"),
        (lambda x: x, r"feature 0 .* \(2, 1, 4, 4\)"),
        (lambda x: pooled(x)[:1], r"feature 0 .* shape \(1, 1\)"),
        (lambda x: pooled(x).long(), "got torch.int64"),
    ],
)
def test_other_outputs_are_refused(output, message):
    with pytest.raises(ValueError, match=message):
        build_network(Returns(output), image_shape=(1, 4, 4))


def test_options_do_not_apply_to_a_module():
    with pytest.raises(TypeError, match=r"'n_heads', 'width'.* only apply to a named network"):
        build_network(Returns(pooled), image_shape=(1, 4, 4), n_heads=3, width=2.0)


def test_neither_name_nor_module_is_refused():
    with pytest.raises(TypeError, match=r"'network' must be a name or an nn\.Module, got int"):
        build_network(18, image_shape=(1, 4, 4))


def test_torchvision_missing_names_the_command(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision.models.resnet", None)
    with pytest.raises(ImportError, match=r"pip install 'deepclust_ext\[train\]'"):
        resnet18_trunk((3, 20, 20))


def test_trunk_of_own_blocks():
    trunk = BranchedTrunk(nn.Identity(), [nn.Conv2d(1, 2, 1)], [nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 1)], 1)
    assert feature_dims(trunk, (1, 5, 5)) == [2, 3, 4]
