"""StrokeViews: a fixed size, a stroke of random width, exact where nothing is random."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from deepclust_ext.data import make_augmentation
from deepclust_ext.data.geometry import elastic_offsets, sample

STILL = {"degrees": 0.0, "scale": (1.0, 1.0), "stretch": 0.0, "shear": 0.0, "shift": 0.0, "elastic": 0.0}


def strokes(shape=(1, 28, 28), **parameters):
    return make_augmentation("digits", image_shape=shape, **parameters)


def images(n=6, shape=(1, 28, 28), seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "side"), [((1, 28, 28), 20), ((3, 32, 32), 20), ((1, 8, 8), 16), ((1, 27, 35), 20)])
def test_views_have_the_size_it_says(shape, side):
    augmentation = strokes(shape)
    assert augmentation.output_shape == (shape[0], side, side)
    for views in (
        augmentation(images(shape=shape), generator=torch.Generator().manual_seed(0)),
        augmentation.plain(images(shape=shape)),
    ):
        assert views.shape == (6, shape[0], side, side)
        assert 0 <= views.min() <= views.max() <= 1


def test_without_movement_a_view_is_the_redrawn_image():
    augmentation = strokes(**STILL, side=28, margin=0.0, stroke=(0.3, 0.3), softness=0.5)
    expected = ((F.avg_pool2d(images(), 3, 1, 1) - 0.3) / 0.5).clamp(0, 1)
    torch.testing.assert_close(augmentation.plain(images()), expected)
    torch.testing.assert_close(augmentation(images(), generator=torch.Generator()), expected)


def test_a_higher_threshold_draws_a_thinner_stroke():
    bar = torch.zeros(1, 1, 28, 28)
    bar[..., 12:16] = 1.0
    ink = [strokes(**STILL, stroke=(t, t)).plain(bar).sum().item() for t in (0.1, 0.3, 0.5)]
    assert ink[0] > 1.2 * ink[1] > 1.2 * 1.2 * ink[2]


def test_margin_shows_the_figure_smaller():
    full = torch.ones(1, 1, 8, 8)
    assert strokes((1, 8, 8), margin=0.0).plain(full).mean() > 1.2 * strokes((1, 8, 8), margin=0.5).plain(full).mean()


def test_views_of_one_image_differ_in_ink_and_come_again_with_the_generator():
    augmentation = strokes()
    same = images(1).expand(64, -1, -1, -1)
    first = augmentation(same, generator=torch.Generator().manual_seed(3))
    again = augmentation(same, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert first.mean((1, 2, 3)).std() > 0.05


def test_elastic_offsets_pass_through_the_corner_control_points():
    moves = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    offsets = elastic_offsets(moves, (20, 20))
    torch.testing.assert_close(offsets[..., 0, 0], moves[..., 0, 0])
    torch.testing.assert_close(offsets[..., -1, 0], moves[..., -1, 0])


def test_an_offset_of_two_pixels_moves_the_image_by_two_pixels():
    x = images()
    offsets = torch.zeros(6, 2, 28, 28)
    offsets[:, 0] = 2 * 2 / 28  # across: the first of the two planes
    moved = sample(x, torch.eye(2, 3)[None].repeat(6, 1, 1), (28, 28), offsets=offsets)
    torch.testing.assert_close(moved[..., :-2], x[..., 2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"side": 0}, "'side' must be at least 1, got 0"),
        ({"softness": 0.0}, "'softness' must be above 0, got 0.0"),
        ({"stroke": (0.5, 0.2)}, r"'stroke' must be \(low, high\)"),
        ({"elastic": -1.0}, "'elastic' must be in"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        strokes(**parameters)
