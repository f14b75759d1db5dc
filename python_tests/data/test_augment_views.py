"""Geometry and colour against a reference image by image."""

from __future__ import annotations

import math

import pytest
import torch

from deepclust_ext.data import as_float, make_augmentation
from deepclust_ext.data.colour import colour_jitter, erase
from deepclust_ext.data.geometry import affine_matrix, crop_matrix, sample, uniform


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=generator(1))


def content(b: int = 1, **parameters: float) -> torch.Tensor:
    neutral = {"angle": 0.0, "scale": 1.0, "stretch": 1.0, "shear": 0.0, "shift_x": 0.0, "shift_y": 0.0}
    aspect = parameters.pop("aspect", 1.0)
    return affine_matrix(**{k: torch.full((b,), parameters.get(k, v)) for k, v in neutral.items()}, aspect=aspect)


def test_uniform_stays_in_its_range():
    draws = uniform(10_000, -2.0, 3.0, generator())
    assert (float(draws.min()) >= -2.0, float(draws.max()) <= 3.0) == (True, True)
    assert abs(float(draws.mean()) - 0.5) < 0.06


@pytest.mark.parametrize("size", [(28, 28), (9, 14)])
def test_identity_changes_nothing(size):
    images = floats(3, 3, *size)
    torch.testing.assert_close(sample(images, content(3), size), images, atol=1e-5, rtol=0)


def test_a_quarter_turn_is_counter_clockwise():
    images = floats(2, 1, 9, 9)
    turned = sample(images, content(2, angle=math.pi / 2), (9, 9))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_a_quarter_turn_of_an_oblong_image_keeps_its_pixels_square():
    images = torch.zeros(1, 1, 11, 21)
    images[0, 0, 5, 7:14] = 1.0
    turned = sample(images, content(1, angle=math.pi / 2, aspect=21 / 11), (11, 21))
    expected = torch.zeros(1, 1, 11, 21)
    expected[0, 0, 2:9, 10] = 1.0
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=0)


def test_shift_moves_the_content_right_and_down():
    images = floats(1, 1, 10, 10)
    moved = sample(images, content(shift_x=0.2, shift_y=0.1), (10, 10))
    torch.testing.assert_close(moved[:, :, 1:, 2:], images[:, :, :-1, :-2], atol=1e-5, rtol=0)
    assert float(moved[:, :, 0].max()) == 0.0
    assert float(moved[:, :, :, :2].max()) < 1e-5
    border = sample(images, content(shift_x=0.2), (10, 10), padding="border")
    torch.testing.assert_close(border[..., 0], images[..., 0], atol=1e-5, rtol=0)


def test_scale_and_stretch_change_the_size_of_the_content():
    images = torch.zeros(1, 1, 40, 40)
    images[:, :, 15:25, 15:25] = 1.0
    assert float(sample(images, content(scale=2.0), (40, 40)).sum()) == pytest.approx(400, rel=0.02)
    wide = sample(images, content(stretch=4.0), (40, 40))
    assert float(wide.sum()) == pytest.approx(100, rel=0.1)
    assert float(wide[0, 0, 20].sum()) == pytest.approx(20, rel=0.05)
    assert float(wide[0, 0, :, 20].sum()) == pytest.approx(5, rel=0.05)


def test_affine_agrees_with_torchvision():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = floats(1, 3, 24, 24)
    for degrees, scale, shift in ((17.0, 1.0, (0, 0)), (-33.0, 0.8, (3, -2)), (5.0, 1.3, (0, 4))):
        ours = sample(
            images,
            content(angle=math.radians(degrees), scale=scale, shift_x=shift[0] / 24, shift_y=shift[1] / 24),
            (24, 24),
        )
        # torchvision turns clockwise and fades the border by the mask of its own sampling.
        mode = functional.InterpolationMode.BILINEAR
        theirs = functional.affine(
            images, angle=-degrees, translate=list(shift), scale=scale, shear=[0.0, 0.0], interpolation=mode
        )
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)


def test_shear_agrees_with_torchvision():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = floats(1, 1, 24, 24)
    ours = sample(images, content(shear=math.tan(math.radians(12.0))), (24, 24))
    mode = functional.InterpolationMode.BILINEAR
    found = [
        functional.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=[sign * 12.0, 0.0], interpolation=mode)
        for sign in (1, -1)
    ]
    # The two libraries disagree on the sign of a slant, which is drawn symmetrically.
    assert min(float((ours - theirs).abs().max()) for theirs in found) < 2e-4


def test_a_window_agrees_with_torchvision():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = floats(1, 3, 20, 30)
    top, left, height, width = 3, 6, 10, 12
    matrix = crop_matrix(
        content(),
        width=torch.tensor([width / 30]),
        height=torch.tensor([height / 20]),
        x=torch.tensor([left / (30 - width)]),
        y=torch.tensor([top / (20 - height)]),
    )
    ours = sample(images, matrix, (20, 30), padding="border")
    theirs = functional.resized_crop(images, top, left, height, width, [20, 30], antialias=False)
    # They differ at the window's rim only: ours sees the pixels beyond it, a crop does not.
    torch.testing.assert_close(ours[:, :, 1:-1, 2:-2], theirs[:, :, 1:-1, 2:-2], atol=1e-4, rtol=0)


def test_a_negative_width_mirrors():
    images = floats(1, 1, 8, 8)
    one, half = torch.ones(1), torch.full((1,), 0.5)
    mirrored = sample(images, crop_matrix(content(), width=-one, height=one, x=half, y=half), (8, 8))
    torch.testing.assert_close(mirrored, images.flip(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.4, 0.9, 1.0])
def test_factors_agree_with_torchvision(channels, factor):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = floats(4, channels, 11, 13)
    adjust = {
        "brightness": functional.adjust_brightness,
        "contrast": functional.adjust_contrast,
        "saturation": functional.adjust_saturation,
    }
    for name, reference in adjust.items():
        parameters = {key: torch.ones(4) for key in adjust} | {name: torch.full((4,), factor)}
        ours = colour_jitter(images.clone(), **parameters, hue=torch.zeros(4))
        # torchvision's luma weights sum to 0.9999.
        torch.testing.assert_close(ours, reference(images, factor), atol=2e-4, rtol=0)


def test_each_image_has_its_own_factors():
    images = floats(3, 3, 5, 5) * 0.4
    factors = torch.tensor([0.5, 1.0, 2.0])
    one = torch.ones(3)
    ours = colour_jitter(images.clone(), brightness=factors, contrast=one, saturation=one, hue=0 * one)
    torch.testing.assert_close(ours, images * factors.view(3, 1, 1, 1), atol=1e-6, rtol=0)


def test_the_chain_is_the_steps_in_order():
    images = floats(6, 3, 7, 7) * 0.3 + 0.3
    one = torch.ones(6)
    neutral = {"brightness": one, "contrast": one, "saturation": one, "hue": 0 * one}
    drawn = {
        "brightness": uniform(6, 0.9, 1.1, generator(2)),
        "contrast": uniform(6, 0.8, 1.2, generator(3)),
        "saturation": uniform(6, 0.8, 1.2, generator(4)),
        "hue": uniform(6, -0.1, 0.1, generator(5)),
    }
    steps = images.clone()
    for name, value in drawn.items():
        steps = colour_jitter(steps, **{**neutral, name: value})
    torch.testing.assert_close(colour_jitter(images.clone(), **drawn), steps, atol=1e-5, rtol=0)


def test_hue_turns_chroma_at_constant_luma():
    images = floats(4, 3, 6, 6) * 0.2 + 0.4
    one = torch.ones(4)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)

    def turned(turns: float) -> torch.Tensor:
        return colour_jitter(images.clone(), brightness=one, contrast=one, saturation=one, hue=one * turns)

    torch.testing.assert_close(turned(1.0), images, atol=1e-5, rtol=0)
    luma = (images * weights).sum(1)
    for turns in (0.1, 0.25, 0.5):
        torch.testing.assert_close((turned(turns) * weights).sum(1), luma, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned(0.5) + images, 2 * luma[:, None].expand_as(images), atol=1e-4, rtol=0)
    # A third of a turn leads away from red, to green or to blue.
    red = torch.tensor([0.6, 0.4, 0.4]).view(1, 3, 1, 1)
    third = colour_jitter(red.clone(), brightness=one[:1], contrast=one[:1], saturation=one[:1], hue=one[:1] / 3)
    assert int(third.flatten().argmax()) != 0


def test_saturation_zero_is_greyscale():
    one = torch.ones(2)
    grey = colour_jitter(floats(2, 3, 4, 4), brightness=one, contrast=one, saturation=0 * one, hue=one * 0.3)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-6, rtol=0)


def test_erase_fills_one_rectangle():
    images = torch.ones(3, 2, 10, 20)
    erase(
        images,
        applied=torch.tensor([True, False, True]),
        width=torch.tensor([0.5, 0.5, 0.25]),
        height=torch.tensor([0.2, 0.2, 1.0]),
        x=torch.tensor([0.0, 0.0, 1.0]),
        y=torch.tensor([1.0, 0.0, 0.5]),
        value=0.0,
    )
    assert images.flatten(1).sum(1).tolist() == [2 * (200 - 20), 400, 2 * (200 - 50)]
    assert float(images[0, :, 8:, :10].max()) == 0.0
    assert float(images[2, :, :, 15:].max()) == 0.0


def test_switched_off_everything_is_the_image():
    off = {
        "degrees": 0.0,
        "scale": (1.0, 1.0),
        "stretch": 0.0,
        "shear": 0.0,
        "shift": 0.0,
        "crop": (1.0, 1.0),
    }
    augmentation = make_augmentation("figures", image_shape=(1, 28, 28), **off, brightness=0.0)
    images = floats(5, 1, 28, 28)
    torch.testing.assert_close(augmentation(images, generator=generator()), images, atol=1e-5, rtol=0)
    off = {"area": (1.0, 1.0), "ratio": 1.0, "flip": 0.0, "hue": 0.0, "grayscale": 0.0}
    factors = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    augmentation = make_augmentation("natural32", image_shape=(3, 32, 32), **off, **factors)
    images = floats(5, 3, 32, 32)
    torch.testing.assert_close(augmentation(images, generator=generator()), images, atol=1e-5, rtol=0)


def test_probabilities_are_kept():
    geometry = {
        "area": (1.0, 1.0),
        "ratio": 1.0,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "hue": 0.0,
    }
    augmentation = make_augmentation("natural32", image_shape=(3, 4, 4), **geometry, flip=0.5, grayscale=0.2)
    images = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1) * torch.linspace(0.5, 1, 4).expand(4000, 1, 4, 4)
    views = augmentation(images, generator=generator())
    mirrored = views[:, 0, 0, 0] > views[:, 0, 0, 3]
    grey = (views[:, 0] - views[:, 2]).abs().flatten(1).amax(1) < 1e-3
    # Four standard deviations of 4,000 draws.
    assert abs(float(mirrored.float().mean()) - 0.5) < 0.032
    assert abs(float(grey.float().mean()) - 0.2) < 0.026
    both = float((mirrored & grey).float().mean())
    assert abs(both - 0.1) < 0.02

    augmentation = make_augmentation("figures", image_shape=(1, 16, 16), erase=0.3, padding="border")
    views = augmentation(torch.ones(4000, 1, 16, 16), generator=generator())
    erased = views.flatten(1).amin(1) == 0.0
    assert abs(float(erased.float().mean()) - 0.3) < 0.03


def test_windows_cover_the_areas_asked_for():
    # A ramp shows the window's width as its slope.
    off = {"flip": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grayscale": 0.0}
    augmentation = make_augmentation("natural96", image_shape=(1, 33, 33), **off, area=(0.25, 0.25), ratio=1.0)
    ramp = torch.linspace(0, 1, 33).expand(500, 1, 33, 33)
    views = augmentation(ramp, generator=generator())
    slope = (views[:, 0, 16, 20] - views[:, 0, 16, 12]) / 8 * 32
    torch.testing.assert_close(slope, torch.full((500,), 0.5), atol=1e-3, rtol=0)
    centre = views[:, 0, 16, 16]
    assert (float(centre.min()) < 0.27, float(centre.max()) > 0.73) == (True, True)
    assert abs(float(centre.mean()) - 0.5) < 0.03


def test_a_flip_mirrors_some_images_and_nothing_else():
    images = torch.randint(0, 256, (200, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = make_augmentation("flip", image_shape=(3, 4, 5))(images, generator=torch.Generator().manual_seed(1))
    mirrored = (views == as_float(images).flip(-1)).flatten(1).all(1)
    kept = (views == as_float(images)).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 70 < mirrored.sum() < 130
    never = make_augmentation("flip", image_shape=(3, 4, 5), flip=0.0)
    assert torch.equal(never(images, generator=torch.Generator().manual_seed(1)), as_float(images))
    with pytest.raises(ValueError, match="'flip' must be in"):
        make_augmentation("flip", image_shape=(3, 4, 5), flip=1.5)
