"""One file must not stop a run: broken metadata, thin and enormous images, 16 bits, frames, missing decoders."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.trees import save_png

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data import load_data
from deepclust_ext.data.decode import decode
from deepclust_ext.data.pool import Budget, in_order

# Orientation 6 and a resolution below zero, which cannot be written back; a file that ends early; no TIFF at all.
NEGATIVE = (
    b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\x1a\x01\n\0\x01\0\0\0&\0\0\0\0\0\0\0"
    b"\xff\xff\xff\xff\0\0\0\0"
)
BROKEN_EXIF = [NEGATIVE, b"Exif\0\0MM\0*\0\0\xff\0", b"Exif\0\0garbage garbage"]


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("exif", BROKEN_EXIF, ids=["negative", "offset", "garbage"])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_pixels_with_broken_metadata_are_used(tmp_path, kind, exif):
    for number in range(2):
        Image.fromarray(noise(number, 24, 24, 3)).save(tmp_path / f"{number}.{kind}", exif=exif)
    data = load_data(tmp_path)
    assert (len(data), data.skipped) == (2, ())


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_the_orientation_is_read_beside_what_is_broken(tmp_path, kind):
    for number in range(2):
        Image.fromarray(noise(number, 8, 16, 3)).save(tmp_path / f"{number}.{kind}", exif=NEGATIVE, lossless=True)
    found = load_data(tmp_path).images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.rot90(noise(0, 8, 16, 3), -1))


def test_a_text_that_is_no_profile_does_not_matter(tmp_path):
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n   10\nzzzz")
    for number in range(2):
        Image.fromarray(noise(number, 8, 8)).save(tmp_path / f"{number}.png", pnginfo=text)
    assert load_data(tmp_path).skipped == ()


def test_a_thin_image_takes_no_more_memory_than_its_pixels(tmp_path):
    code = (
        "import resource, sys\n"
        "from deepclust_ext.data import load_data\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "load_data(sys.argv[1] + '/small', image_size=160); before = peak()\n"
        "load_data(sys.argv[1] + '/thin', image_size=160); print((peak() - before) // 1024)"
    )
    for number in range(2):
        save_png(tmp_path / "small" / f"{number}.png")
        (tmp_path / "thin").mkdir(exist_ok=True)
        shape = (60000, 1) if number else (1, 60000)
        Image.fromarray(noise(0, *shape)).save(tmp_path / "thin" / f"{number}.png")
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 50


@pytest.mark.parametrize("shape", [(40, 300), (300, 41), (64, 63), (16, 16), (7, 5), (3, 90)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_cutting_first_changes_no_more_than_rounding(shape, mode):
    picture = Image.fromarray(noise(0, *shape, 4)).convert(mode)
    size = 16
    width, height = picture.size
    short = min(width, height)
    width, height = max(size, round(width * size / short)), max(size, round(height * size / short))
    left, top = (width - size) // 2, (height - size) // 2
    canvas = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(canvas, picture.convert("RGBA")).convert("L" if mode == "L" else "RGB")
    whole = flat.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    difference = decode(picture, size).pixels.astype(int) - np.asarray(whole)
    assert np.abs(difference).max() <= 1


def test_a_jpeg_is_decoded_to_what_the_result_needs(tmp_path, monkeypatch):
    yy, xx = np.mgrid[:1200, :1600]
    wave = (127 + 100 * np.sin(xx / 90) * np.cos(yy / 70)).astype(np.uint8)
    for number in range(2):
        Image.fromarray(wave).save(tmp_path / f"{number}.jpg", quality=95)
    sizes = []
    monkeypatch.setattr(
        "deepclust_ext.data.reading.decode",
        lambda picture, *a, **k: sizes.append(picture.size) or decode(picture, *a, **k),
    )
    data = load_data(tmp_path, image_size=64)
    assert sizes == [(200, 150)] * 2
    full = decode(Image.fromarray(wave), 64).pixels
    assert np.abs(data.images[0, 0].numpy().astype(int) - full).max() <= 6


def test_very_large_images_can_be_allowed(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for number in range(2):
        save_png(tmp_path / f"{number}.png")
        save_png(tmp_path / f"large{number}.png", size=11 + 30 * number)
    reasons = dict(load_data(tmp_path, image_size=8).skipped)
    assert reasons["large0.png"].endswith("max_pixels=121 allows it")
    assert reasons["large1.png"].endswith("max_pixels=1681 allows it")
    assert len(load_data(tmp_path, image_size=8, max_pixels=5000)) == 4
    assert Image.MAX_IMAGE_PIXELS == 100
    assert len(load_data(tmp_path, image_size=8, max_pixels=64)) == 2
    assert not recwarn.list
    with pytest.raises(ValueError, match="'max_pixels' must be at least 1, got 0"):
        load_data(tmp_path, max_pixels=0)


def test_twelve_bits_are_said_to_be_dark_and_can_be_stretched(tmp_path):
    deep = noise(0, 8, 8).astype(np.uint16) * 16
    for number in range(2):
        Image.fromarray(deep + number).save(tmp_path / f"{number}.png")
    with pytest.warns(DeepclustWarning, match=rf"use 0 to {deep.max() + 1} of 0 to 65535 .* stretch=4095 makes 4095"):
        assert load_data(tmp_path).images.max() < 17
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_data(tmp_path, stretch=4095)
    assert np.array_equal(data.images[0, 0].numpy(), np.round(deep / 4095 * 255).astype(np.uint8))
    # One bright image, or one of 8 bits, is enough: the scale is the folder's, not an image's own.
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / "bright.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(tmp_path)
    assert load_data(tmp_path, stretch=4095).images[2].min() == 255


FRAMED = {"a.tif": {}, "b.gif": {}, "c.png": {}, "d.webp": {"lossless": True}}


@pytest.fixture
def framed(tmp_path):
    """Files of three frames of all kinds, and two of one frame."""
    frames = [Image.fromarray(noise(number, 16, 16)) for number in range(3)]
    for name, options in FRAMED.items():
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    for number in range(2):
        save_png(tmp_path / f"one{number}.png", number, size=16)
    return tmp_path


def test_the_first_frame_is_taken_and_said_to_be(framed):
    with pytest.warns(DeepclustWarning, match="4 files have more than one frame, such as 'a.tif', and the first"):
        data = load_data(framed)
    assert len(data) == 6
    for image in data.images[:2]:
        assert np.array_equal(image[0].numpy(), noise(0, 16, 16))


def test_all_frames_are_images(framed, recwarn):
    data = load_data(framed, frames="all")
    assert data.names[:4] == ("a.tif#0", "a.tif#1", "a.tif#2", "b.gif#0")
    assert len(data) == 14
    assert data.names[-2:] == ("one0.png", "one1.png")
    for number in range(3):
        assert np.array_equal(data.images[number, 0].numpy(), noise(number, 16, 16))
    assert not recwarn.list
    with pytest.raises(ValueError, match="'frames' must be one of 'first', 'all', got 'last'"):
        load_data(framed, frames="last")


def test_a_damaged_further_frame_takes_nothing_from_the_first(tmp_path, recwarn):
    frames = [Image.fromarray(noise(number, 64, 64)) for number in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content[: len(content) // 2])
    save_png(tmp_path / "b.png", size=64)
    assert load_data(tmp_path).names == ("a.gif", "b.png")
    data = load_data(tmp_path, frames="all")
    assert data.names[0] == "a.gif#0"
    assert data.skipped


def test_heic_without_its_package_names_it(tmp_path, monkeypatch):
    for number in range(2):
        save_png(tmp_path / f"{number}.png")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "b.AVIF").write_bytes(b"\0\0\0\x18ftypavif")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("PIL.features.check", lambda name: name != "avif")
    reasons = dict(load_data(tmp_path).skipped)
    assert reasons["a.heic"] == "needs the package pillow-heif: pip install 'deepclust_ext[heif]'"
    assert reasons["b.AVIF"] == "needs Pillow 11.3 or newer, built with AVIF"


def test_heic_with_its_package_is_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    for number in range(2):
        heif.from_pillow(Image.fromarray(noise(number, 64, 64, 3))).save(tmp_path / f"{number}.heic")
    assert load_data(tmp_path).images.shape == (2, 3, 64, 64)


def test_memory_is_shared_and_an_image_that_needs_more_is_alone():
    budget, most, lock = Budget(10), [], threading.Lock()

    def work(size):
        with budget.reserve(size):
            with lock:
                most.append(budget.used)
            threading.Event().wait(0.002)
        return size

    sizes = [4, 4, 4, 30, 4, 9, 1] * 5
    assert list(in_order(work, sizes)) == sizes
    assert max(used for used in most if used != 30) <= 10
    assert budget.used == 0


def test_work_that_nobody_asks_for_is_not_begun():
    begun = []
    results = in_order(lambda n: begun.append(n) or n, range(10_000))
    assert next(results) == 0
    results.close()
    assert len(begun) < 1000
