"""What every augmentation promises: shapes, range, determinism, and errors."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from deepclust_ext.data import PRESET_NAMES, Augmentation, make_augmentation

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 32), (1, 31, 45), (3, 17, 13), (3, 3, 2), (1, 1, 1)]
RANDOM_PRESETS = [name for name in PRESET_NAMES if name != "none"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


def smooth(*shape: int) -> torch.Tensor:
    """Images with structure, so that geometry shows."""
    b, c, h, w = shape
    y, x = torch.linspace(0, 3, h)[:, None], torch.linspace(0, 2, w)
    phase = torch.arange(b * c).view(b, c, 1, 1)
    return (torch.sin(x + y * 1.7 + phase) + 1) / 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PRESET_NAMES)
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_shape_dtype_and_range(name, shape, batch):
    augmentation = make_augmentation(name, image_shape=shape)
    images = noise(batch, *shape)
    before = images.clone()
    for view in (augmentation(images, generator=generator()), augmentation.plain(images)):
        assert view.shape == (batch, *augmentation.output_shape)
        assert view.dtype == torch.float32
        assert view.is_contiguous()
        assert batch == 0 or (float(view.min()) >= 0.0 and float(view.max()) <= 1.0)
    assert torch.equal(images, before)
    assert augmentation.name == name


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_float_images_are_not_overwritten_and_agree_with_bytes(name):
    augmentation = make_augmentation(name, image_shape=(3, 16, 16))
    images = noise(6, 3, 16, 16)
    floats = images.to(torch.float32) / 255
    before = floats.clone()
    from_floats = augmentation(floats, generator=generator())
    torch.testing.assert_close(from_floats, augmentation(images, generator=generator()), atol=1e-6, rtol=0)
    assert torch.equal(floats, before)
    from_floats.zero_()
    assert torch.equal(floats, before)
    half = augmentation(floats.to(torch.float16), generator=generator())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("name", RANDOM_PRESETS)
def test_same_generator_state_same_bits_for_any_number_of_threads(name, threads):
    augmentation = make_augmentation(name, image_shape=(3, 32, 32))
    images = noise(150, 3, 32, 32)
    views = []
    for count in (1, 2, 4):
        threads(count)
        source = generator(5)
        views.append(torch.stack([augmentation(images, generator=source) for _ in range(2)]))
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0][0], views[0][1])
    assert not torch.equal(views[0][0], augmentation(images, generator=generator(6)))


@pytest.mark.parametrize("name", RANDOM_PRESETS)
def test_global_generators_are_neither_read_nor_moved(name):
    augmentation = make_augmentation(name, image_shape=(3, 16, 16))
    images = noise(4, 3, 16, 16)
    state = torch.random.get_rng_state()
    first = augmentation(images, generator=generator())
    assert torch.equal(torch.random.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(99)
        assert torch.equal(augmentation(images, generator=generator()), first)


@pytest.mark.parametrize("name", RANDOM_PRESETS)
def test_the_generator_advances_by_the_same_amount_whatever_the_images(name):
    augmentation = make_augmentation(name, image_shape=(3, 16, 16))
    first, second = generator(), generator()
    augmentation(noise(9, 3, 16, 16), generator=first)
    augmentation(torch.zeros(9, 3, 16, 16), generator=second)
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.parametrize("name", RANDOM_PRESETS)
def test_every_image_draws_its_own_parameters(name):
    augmentation = make_augmentation(name, image_shape=(3, 32, 32))
    views = augmentation(smooth(1, 3, 32, 32).expand(64, 3, 32, 32), generator=generator())
    different = len({view.numpy().tobytes() for view in views})
    assert different == 2 if name == "flip" else different > 55


@pytest.mark.parametrize("name", RANDOM_PRESETS)
def test_pieces_of_a_batch_are_sampled_alike(name, monkeypatch):
    augmentation = make_augmentation(name, image_shape=(3, 20, 20))
    images = noise(23, 3, 20, 20)
    whole = augmentation(images, generator=generator())
    monkeypatch.setattr("deepclust_ext.data.geometry._CHUNK_PIXELS", 20 * 20 * 5)
    assert torch.equal(augmentation(images, generator=generator()), whole)


def test_none_and_plain_are_the_images():
    images = noise(3, 1, 9, 9)
    for name in ("none", "figures", "objects", "natural32", "natural96"):
        augmentation = make_augmentation(name, image_shape=(1, 9, 9))
        assert torch.equal(augmentation.plain(images), images.to(torch.float32) / 255)
    assert torch.equal(make_augmentation("none", image_shape=(1, 9, 9))(images, generator=generator()) * 255, images)


def test_auto_looks_at_the_shape():
    names = [
        make_augmentation("auto", image_shape=s).name for s in ((1, 28, 28), (3, 32, 32), (3, 96, 96), (1, 128, 128))
    ]
    assert names == ["figures", "natural32", "natural96", "figures"]


@pytest.mark.parametrize(
    ("spec", "parameters", "error", "message"),
    [
        ("digit", {}, ValueError, "'spec' must be one of digits, .* none, auto, or a callable, got 'digit'"),
        (3, {}, TypeError, "'spec' must be a name or a callable, got int"),
        (torch.neg, {"degrees": 3}, TypeError, "parameters must be left out .* got degrees"),
        ("digits", {"degree": 3}, TypeError, "'digits' does not take these parameters: .*'degree'"),
        ("digits", {"degrees": 200}, ValueError, r"'degrees' must be in \[0, 180\], got 200"),
        ("figures", {"crop": (0.5, 1.5)}, ValueError, "'crop' must be .* 0 < low <= high <= 1, got"),
        ("digits", {"scale": (1.2, 1.0)}, ValueError, r"'scale' must be .* got \(1.2, 1.0\)"),
        ("figures", {"padding": "wrap"}, ValueError, "'padding' must be one of zeros, border, reflection"),
        ("natural32", {"ratio": 0.5}, ValueError, "'ratio' must be at least 1, got 0.5"),
        ("natural32", {"hue": 0.7}, ValueError, r"'hue' must be in \[0, 0.5\], got 0.7"),
        ("natural32", {"grayscale": -0.1}, ValueError, r"'grayscale' must be in \[0, 1\], got -0.1"),
        ("fast-autoaugment", {"crop": 33}, ValueError, "'crop' must be in 1..32, the shorter side, got 33"),
        ("fast-autoaugment", {"grayscale": 2}, ValueError, r"'grayscale' must be a probability in \[0, 1\]"),
        ("fast-autoaugment", {"policies": []}, ValueError, "'policies' must hold sub-policies"),
        ("fast-autoaugment", {"policies": [[("Blur", 0.5, 0.5)]]}, ValueError, "got .'Blur', 0.5, 0.5"),
        ("fast-autoaugment", {"policies": [[("Rotate", 1.5, 0.5)]]}, ValueError, "got .'Rotate', 1.5, 0.5"),
    ],
)
def test_wrong_settings_are_refused(spec, parameters, error, message):
    with pytest.raises(error, match=message):
        make_augmentation(spec, image_shape=(3, 32, 32), **parameters)


def test_wrong_images_are_refused():
    augmentation = make_augmentation("digits", image_shape=(1, 28, 28))
    for wrong in (torch.zeros(2, 1, 28, 27), torch.zeros(2, 3, 28, 28), torch.zeros(1, 28, 28)):
        with pytest.raises(ValueError, match=r"digits: 'images' must be \(B, 1, 28, 28\), got shape"):
            augmentation(wrong, generator=generator())
        with pytest.raises(ValueError, match=r"digits: 'images' must be \(B, 1, 28, 28\), got shape"):
            augmentation.plain(wrong)
    with pytest.raises(TypeError, match=r"digits: 'images' must be a torch.Tensor, got ndarray"):
        augmentation(torch.zeros(2, 1, 28, 28).numpy(), generator=generator())
    for wrong in (None, 3):
        with pytest.raises(TypeError, match=r"digits: 'generator' must be a torch.Generator, got .*; pass torch"):
            augmentation(torch.zeros(2, 1, 28, 28), generator=wrong)
    with pytest.raises(ValueError, match=r"'image_shape' must be \(C, H, W\) with C 1 or 3, got \(2, 28, 28\)"):
        make_augmentation("digits", image_shape=(2, 28, 28))


def test_an_augmentation_passes_through():
    augmentation = make_augmentation("digits", image_shape=(1, 28, 28))
    assert make_augmentation(augmentation, image_shape=(1, 28, 28)) is augmentation
    with pytest.raises(ValueError, match=r"must be made for images of \(1, 8, 8\), got StrokeViews"):
        make_augmentation(augmentation, image_shape=(1, 8, 8))


def test_a_transform_draws_from_our_generator_only():
    def transform(image):
        assert image.dtype == torch.float32
        return image * torch.rand(()) * random.random() * float(np.random.rand())  # noqa: NPY002

    augmentation = make_augmentation(transform, image_shape=(1, 4, 4))
    assert isinstance(augmentation, Augmentation)
    assert augmentation.name == "transform"
    states = (torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
    images = torch.ones(8, 1, 4, 4)
    first = augmentation(images, generator=generator())
    assert torch.equal(augmentation(images, generator=generator()), first)
    assert len(first[:, 0, 0, 0].unique()) == 8
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])  # noqa: NPY002


def test_the_global_state_comes_back_after_an_error():
    def transform(image):
        if image.max() == 1:
            random.random()
            raise RuntimeError("broken")
        return image

    augmentation = make_augmentation(transform, image_shape=(1, 4, 4))
    state = random.getstate()
    with pytest.raises(RuntimeError, match="broken"):
        augmentation(torch.ones(2, 1, 4, 4), generator=generator())
    assert random.getstate() == state


def test_a_torchvision_pipeline_with_a_crop():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    pipeline = v2.Compose([v2.RandomCrop(20), v2.RandomHorizontalFlip(), v2.Grayscale(3)])
    augmentation = make_augmentation(pipeline, image_shape=(3, 32, 32))
    images = noise(5, 3, 32, 32)
    assert augmentation.output_shape == (3, 20, 20)
    assert augmentation(images, generator=generator()).shape == (5, 3, 20, 20)
    assert augmentation.plain(images).shape == (5, 3, 20, 20)


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (lambda image: image.numpy(), TypeError, r"must return a tensor, got ndarray; end the pipeline with"),
        (lambda image: image[0], ValueError, r"must return \(C, H, W\) with C 1 or 3, got shape \(8, 8\)"),
    ],
)
def test_wrong_transforms_are_refused(transform, error, message):
    with pytest.raises(error, match=message):
        make_augmentation(transform, image_shape=(1, 8, 8))


def test_a_transform_that_changes_its_shape_is_refused():
    augmentation = make_augmentation(lambda i: i[:, :, : 6 if i.max() == 1 else 8], image_shape=(1, 8, 8))
    with pytest.raises(ValueError, match=r"one shape for every image, got \(1, 8, 6\) after \(1, 8, 8\)"):
        augmentation(torch.ones(2, 1, 8, 8), generator=generator())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", PRESET_NAMES)
@pytest.mark.parametrize("side", [28, 32])
def test_cuda_agrees_with_cpu(name, side):
    augmentation = make_augmentation(name, image_shape=(3, side, side))
    images = noise(64, 3, side, side)
    expected = augmentation(images, generator=generator())
    on_device = augmentation(images.cuda(), generator=generator())
    assert on_device.is_cuda
    torch.testing.assert_close(on_device.cpu(), expected, atol=1e-4, rtol=0)
    source = torch.Generator("cuda").manual_seed(0)
    assert augmentation(images.cuda(), generator=source).shape == expected.shape
