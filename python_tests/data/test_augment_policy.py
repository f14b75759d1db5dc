"""Fast AutoAugment: each operation against Pillow, and how sub-policies are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from deepclust_ext.data import make_augmentation
from deepclust_ext.data import policy_ops as ops
from deepclust_ext.data.policy import OPERATIONS, apply_operation, published_policies

Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")
ImageEnhance = pytest.importorskip("PIL.ImageEnhance")

GREY_SHAPES = [(1, 32, 32), (1, 17, 23)]
SHAPES = [(3, 32, 32), (3, 17, 23), *GREY_SHAPES]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(b: int, c: int, h: int, w: int) -> torch.Tensor:
    """Half noise, half smooth with few tones: equalize and autocontrast need both."""
    images = torch.randint(0, 256, (b, c, h, w), dtype=torch.uint8, generator=generator(1))
    ramp = torch.linspace(40, 180, h)[:, None] + torch.linspace(0, 30, w)
    images[b // 2 :] = ramp.to(torch.uint8)
    images[-1] = 77
    return images


def to_pil(image: torch.Tensor):
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def from_pil(image) -> torch.Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.dim() == 2 else array.permute(2, 0, 1)


def affine(image, *coefficients: float):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


REFERENCES = {
    "ShearX": lambda image, v: affine(image, 1, v, 0, 0, 1, 0),
    "ShearY": lambda image, v: affine(image, 1, 0, 0, v, 1, 0),
    "TranslateX": lambda image, v: affine(image, 1, 0, v * image.size[0], 0, 1, 0),
    "TranslateY": lambda image, v: affine(image, 1, 0, 0, 0, 1, v * image.size[1]),
    "Rotate": lambda image, v: image.rotate(v),
    "AutoContrast": lambda image, v: ImageOps.autocontrast(image),
    "Invert": lambda image, v: ImageOps.invert(image),
    "Equalize": lambda image, v: ImageOps.equalize(image),
    "Solarize": ImageOps.solarize,
    "Posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "Contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "Color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "Brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "Sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
}
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
# A blend rounds in float32 in another order: one byte of difference, in few pixels.
BLENDS = ("Contrast", "Color", "Brightness", "Sharpness")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", REFERENCES)
def test_operations_agree_with_pillow(name, shape):
    _, low, high, _ = OPERATIONS[name]
    images = pictures(12, *shape)
    values = torch.linspace(low, high, 12)[torch.randperm(12, generator=generator(2))]
    ours = apply_operation(name, images.clone(), values, values, values)
    theirs = torch.stack([from_pil(REFERENCES[name](to_pil(i), float(v))) for i, v in zip(images, values, strict=True)])
    assert ours.dtype == torch.uint8
    difference = (ours.int() - theirs.int()).abs()
    if name in GEOMETRIC:
        # Pillow steps through the source in 16-bit fixed point: a pixel on an edge may fall to its neighbour.
        assert float((difference > 0).float().mean()) < 0.01
    elif name in BLENDS:
        assert int(difference.max()) <= 1
        assert float((difference > 0).float().mean()) < 0.01
    else:
        assert int(difference.max()) == 0


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 3), (3, 1, 7)])
def test_operations_on_tiny_images(name, shape):
    images = pictures(4, *shape)
    value = torch.full((4,), 0.3)
    result = apply_operation(name, images.clone(), value, value, value)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8


def test_cutout_fills_a_square_with_grey():
    images = torch.zeros(3, 3, 40, 40, dtype=torch.uint8)
    middle, corner = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.5, 0.0])
    result = ops.cutout(images, torch.tensor([0.2, 0.0, 0.2]), middle, corner)
    filled = (result > 0).all(dim=1)
    assert filled.flatten(1).sum(1).tolist() == [64, 0, 16]
    assert filled[0, 16:24, 16:24].all()
    assert result[0, :, 20, 20].tolist() == [125, 123, 114]
    grey = ops.cutout(images[:, :1], torch.tensor([0.2, 0.0, 0.2]), middle, corner)
    assert int(grey.max()) == 123


def test_the_published_policies():
    policies = published_policies()
    assert len(policies) == 493
    assert {len(policy) for policy in policies} == {2}
    names = Counter(name for policy in policies for name, _, _ in policy)
    assert set(names) == set(OPERATIONS)
    assert all(0 <= p <= 1 and 0 <= level <= 1 for policy in policies for _, p, level in policy)


def only(*policy: tuple[str, float, float], shape=(3, 32, 32), **parameters):
    parameters = {"crop": 32, "grayscale": 0.0, **parameters}
    return make_augmentation("fast-autoaugment", image_shape=shape, policies=[policy], **parameters)


def bytes_of(views: torch.Tensor) -> torch.Tensor:
    return (views * 255).round().to(torch.uint8)


def test_levels_map_linearly_to_values_and_signs_are_drawn():
    images = pictures(400, 3, 32, 32)
    views = bytes_of(only(("Rotate", 1.0, 0.75))(images, generator=generator()))
    left, right = ops.rotate(images, torch.full((400,), 15.0)), ops.rotate(images, torch.full((400,), -15.0))
    is_left = (views == left).flatten(1).all(1)
    is_right = (views == right).flatten(1).all(1)
    assert (is_left | is_right).all()
    assert abs(float(is_left[:200].float().mean()) - 0.5) < 0.15
    views = bytes_of(only(("Posterize", 1.0, 0.5))(images, generator=generator()))
    assert torch.equal(views, images & 0b11111100)
    views = bytes_of(only(("Solarize", 1.0, 0.5))(images, generator=generator()))
    assert torch.equal(views, torch.where(images < 128, images, 255 - images))


def test_operations_are_applied_in_order_each_with_its_probability():
    images = torch.zeros(2000, 3, 32, 32, dtype=torch.uint8)
    views = bytes_of(only(("Invert", 0.5, 0.0), ("Solarize", 0.25, 0.0))(images, generator=generator()))
    # Solarize at threshold 0 inverts too: white when exactly one of the two was applied.
    white = views[:, 0, 0, 0] == 255
    assert (views == views[:, :1, :1, :1]).all()
    assert abs(float(white.float().mean()) - (0.5 * 0.75 + 0.5 * 0.25)) < 0.045
    images = pictures(8, 3, 32, 32)
    views = bytes_of(only(("Invert", 1.0, 0.0), ("Brightness", 1.0, 0.0))(images, generator=generator()))
    assert torch.equal(views, ops.brightness(255 - images, torch.full((8,), 0.1)))
    assert torch.equal(bytes_of(only(("Invert", 0.0, 0.0))(images, generator=generator())), images)


def test_one_sub_policy_is_drawn_for_each_image_uniformly():
    images = torch.zeros(3000, 1, 8, 8, dtype=torch.uint8)
    images[:, :, :, 4:] = 100
    policies = [
        [("Invert", 1.0, 0.0)],
        [("Brightness", 1.0, 0.0)],
        [("Solarize", 1.0, 50 / 256)],
    ]
    augmentation = make_augmentation("fast-autoaugment", image_shape=(1, 8, 8), policies=policies, crop=8)
    views = bytes_of(augmentation(images, generator=generator()))
    counts = Counter(zip(views[:, 0, 0, 0].tolist(), views[:, 0, 0, 7].tolist(), strict=True))
    assert set(counts) == {(255, 155), (0, 10), (0, 155)}
    assert all(abs(count - 1000) < 110 for count in counts.values())


@pytest.mark.parametrize(("side", "crop"), [(32, 20), (96, 64), (28, 18), (8, 5)])
def test_crops_are_squares_at_every_place(side, crop):
    augmentation = make_augmentation("fast-autoaugment", image_shape=(1, side, side), policies=[[("Invert", 0, 0)]])
    assert augmentation.output_shape == (1, crop, crop)
    # Pixel values that tell where a pixel came from.
    ramp = torch.arange(side, dtype=torch.uint8)
    for image, axis in ((ramp.expand(side, side), "left"), (ramp[:, None].expand(side, side), "top")):
        images = image.expand(1500, 1, side, side)
        views = bytes_of(augmentation(images, generator=generator()))
        starts = views[:, 0, 0, 0].int()
        steps = views[:, 0].diff(dim=2 if axis == "left" else 1).int()
        assert (steps == 1).all()
        assert starts.unique().tolist() == list(range(side - crop + 1))
        plain = bytes_of(augmentation.plain(images))
        assert int(plain[0, 0, 0, 0]) == (side - crop) // 2


def test_greyscale_has_its_probability_and_pillows_weights():
    images = pictures(3000, 3, 5, 5)
    augmentation = make_augmentation("fast-autoaugment", image_shape=(3, 5, 5), policies=[[("Invert", 0, 0)]], crop=5)
    views = bytes_of(augmentation(images, generator=generator()))[:1500]
    grey = (views == views[:, :1]).flatten(1).all(1)
    assert abs(float(grey.float().mean()) - 0.5) < 0.055
    i = int(grey.nonzero()[0])
    assert torch.equal(views[i, 0], from_pil(to_pil(images[i]).convert("L"))[0])
    assert torch.equal(views[~grey], images[:1500][~grey])


def test_the_whole_follows_its_definition_image_by_image():
    """Apply the drawn operations one image at a time: grouping by operation must not mix images up."""
    images = pictures(60, 3, 32, 32)
    augmentation = make_augmentation("fast-autoaugment", image_shape=(3, 32, 32), crop=32, grayscale=0.0)
    views = bytes_of(augmentation(images, generator=generator(7)))
    source = generator(7)
    drawn = torch.randint(493, (60,), generator=source).tolist()
    chance, sign, x, y = torch.rand(4, 60, 2, generator=source)
    for i, number in enumerate(drawn):
        image = images[i : i + 1].clone()
        for step, (name, probability, level) in enumerate(published_policies()[number]):
            _, low, high, signed = OPERATIONS[name]
            value = torch.tensor([low + level * (high - low)])
            if signed and sign[i, step] < 0.5:
                value = -value
            if chance[i, step] < probability:
                image = apply_operation(name, image, value, x[i, step, None], y[i, step, None])
        assert torch.equal(views[i], image[0]), (i, published_policies()[number])
