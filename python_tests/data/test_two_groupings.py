"""Images made with two groupings: pixels, independence, the same images from the same seed."""

import colorsys

import numpy as np
import pytest
import torch

from deepclust_ext import evaluate
from deepclust_ext.data import ImageData
from deepclust_ext.data.two_groupings import coloured_grounds, side_by_side


def figures(n=2000, side=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (n, 1, side, side), dtype=torch.uint8, generator=generator)
    return ImageData(images, torch.randint(10, (n,), generator=generator))


def test_the_ground_shows_through_where_the_figure_is_dark():
    grey = figures(50)
    found = coloured_grounds(grey, n_hues=6, level=0.4)
    for image, hue, before in zip(found.images.images, found.first, grey.images, strict=True):
        ground = torch.tensor(colorsys.hsv_to_rgb(int(hue) / 6, 1.0, 0.4))[:, None, None]
        share = before / 255
        torch.testing.assert_close(image / 255, ground + (1 - ground) * share, atol=1 / 255, rtol=0)


def test_all_hues_occur_and_say_nothing_of_the_figure():
    found = coloured_grounds(figures())
    assert sorted(set(found.first.tolist())) == list(range(10))
    assert evaluate.scores(found.first.numpy(), found.second.numpy())["nmi"] < 0.02
    assert torch.equal(found.second, found.images.labels)


def test_each_figure_stands_on_the_left_once_and_on_the_right_once():
    grey = figures(100)
    found = side_by_side(grey)
    halves = torch.nn.functional.avg_pool2d(grey.images.float(), (1, 2)).round().to(torch.uint8)
    left, right = found.images.images.split(4, dim=3)
    assert torch.equal(right, halves)
    where = [int((left[i] == halves).all(dim=(1, 2, 3)).nonzero()[0]) for i in range(100)]
    assert sorted(where) == list(range(100))
    assert torch.equal(found.first, grey.labels[where])
    assert torch.equal(found.second, grey.labels)


@pytest.mark.parametrize("make", [coloured_grounds, side_by_side])
def test_seeds(make):
    one, same, other = make(figures(60)), make(figures(60)), make(figures(60), seed=1)
    assert one.images.digest == same.images.digest
    assert torch.equal(one.first, same.first)
    assert not torch.equal(one.first, other.first)


def test_floats_have_the_pixels_of_bytes():
    grey = figures(20)
    floats = ImageData(grey.images.float() / 255, grey.labels)
    for make in (coloured_grounds, side_by_side):
        assert np.array_equal(make(grey).images.images, make(floats).images.images)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coloured_grounds(ImageData(torch.zeros(3, 3, 8, 8), torch.arange(3))), "'grey' must be images of one"),
        (lambda: side_by_side(ImageData(torch.zeros(3, 1, 8, 8))), "with labels"),
        (lambda: side_by_side(ImageData(torch.zeros(3, 1, 8, 7), torch.arange(3))), "square images of an even side"),
        (lambda: coloured_grounds(figures(3), n_hues=1), "'n_hues' must be at least 2"),
        (lambda: coloured_grounds(figures(3), level=1.0), "'level' must be finite, above 0 and below 1"),
    ],
)
def test_wrong_use_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
