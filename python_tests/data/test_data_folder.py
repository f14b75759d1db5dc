"""Folders of images: every mode Pillow knows, damaged files, labels, sizes."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from deepclust_ext.data import has_split, load_data

Image = pytest.importorskip("PIL.Image")


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(array: np.ndarray, path, mode: str | None = None, **keywords) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **keywords)


def test_flat_folder_is_sorted_and_keeps_its_pixels(tmp_path):
    for name in ("b.png", "a.png", "c.PNG"):
        save(pixels(ord(name[0]), 6, 8), tmp_path / name)
    data = load_data(tmp_path)
    assert data.names == ("a.png", "b.png", "c.PNG")
    assert data.images.shape == (3, 1, 6, 8)
    assert np.array_equal(data.images[1, 0].numpy(), pixels(ord("b"), 6, 8))
    assert (data.labels, data.skipped, data.source) == (None, (), str(tmp_path))
    assert data.digest == load_data(str(tmp_path)).digest


def test_nested_folder_sorts_by_relative_path_and_labels_on_request(tmp_path):
    for name in ("cat/x/2.png", "cat/1.png", "ape/9.png", "dog/0.png"):
        save(pixels(0, 5, 5), tmp_path / name)
    assert load_data(tmp_path).labels is None
    data = load_data(tmp_path, folder_labels=True)
    assert data.names == ("ape/9.png", "cat/1.png", "cat/x/2.png", "dog/0.png")
    assert data.labels.tolist() == [0, 1, 1, 2]
    save(pixels(0, 5, 5), tmp_path / "loose.png")
    with pytest.raises(ValueError, match=r"'folder_labels' must be False unless .* got 'loose.png' directly"):
        load_data(tmp_path, folder_labels=True)


def test_unreadable_files_are_listed_and_not_fatal(tmp_path):
    for i in range(3):
        save(pixels(i, 40, 40, 3), tmp_path / f"{i}.jpg")
    whole = (tmp_path / "0.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / ".hidden.png").write_text("left alone")
    (tmp_path / ".thumbnails").mkdir()
    save(pixels(0, 9, 9), tmp_path / ".thumbnails" / "0.png")
    data = load_data(tmp_path)
    assert data.names == ("0.jpg", "1.jpg", "2.jpg")
    reasons = dict(data.skipped)
    assert list(reasons) == ["cut.jpg", "empty.png", "notes.txt", "text.png"]
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["empty.png"] == reasons["text.png"] == "not a readable image"
    assert reasons["notes.txt"] == "not an image file (extension .txt)"


def test_damaged_png_data_is_skipped(tmp_path):
    for i in range(3):
        save(pixels(i, 40, 40), tmp_path / f"{i}.png")
    content = bytearray((tmp_path / "1.png").read_bytes())
    content[100:140] = bytes(40)
    (tmp_path / "1.png").write_bytes(bytes(content))
    data = load_data(tmp_path)
    assert data.names == ("0.png", "2.png")
    assert data.skipped[0][0] == "1.png"


def test_decompression_bombs_are_skipped_with_their_size(tmp_path, monkeypatch, recwarn):
    for i in range(2):
        save(pixels(i, 10, 10), tmp_path / f"{i}.png")
    save(np.zeros((15, 10), np.uint8), tmp_path / "large.png")
    save(np.zeros((50, 50), np.uint8), tmp_path / "larger.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = load_data(tmp_path)
    assert data.names == ("0.png", "1.png")
    assert [name for name, _ in data.skipped] == ["large.png", "larger.png"]
    assert all(reason.startswith("too large to open safely") for _, reason in data.skipped)
    assert len(recwarn) == 0


def test_grey_of_every_mode(tmp_path):
    grey = pixels(0, 7, 7)
    save(grey, tmp_path / "a_L.png")
    save(np.repeat(grey[:, :, None], 3, axis=2), tmp_path / "b_rgb.png")
    save(grey, tmp_path / "c_palette.png", mode="P")
    save(grey, tmp_path / "d_la.png", mode="LA")
    save(grey.astype(np.uint16) * 257, tmp_path / "e_16.png")
    save(grey.astype(np.uint16) * 257, tmp_path / "f_16.tif")
    save(grey.astype(np.int32) * 257, tmp_path / "g_32.tif")
    save((grey / np.float32(255)).astype(np.float32), tmp_path / "h_float.tif")
    data = load_data(tmp_path)
    assert data.skipped == ()
    assert data.images.shape == (8, 1, 7, 7)
    for name, image in zip(data.names, data.images, strict=True):
        assert np.array_equal(image[0].numpy(), grey), name


def test_bilevel_is_black_and_white(tmp_path):
    for i in range(2):
        save(pixels(i, 7, 7) // 128 * 255, tmp_path / f"{i}.png", mode="1")
    assert np.array_equal(load_data(tmp_path).images[1, 0].numpy(), pixels(1, 7, 7) // 128 * 255)


def test_16_bit_scales_by_its_range_not_by_its_extremes(tmp_path):
    save(np.array([[0, 128], [129, 65535]], np.uint16), tmp_path / "a.png")
    save(np.array([[0, 1000], [2000, 4095]], np.uint16), tmp_path / "b.png")
    data = load_data(tmp_path)
    assert data.images[0, 0].flatten().tolist() == [0, 0, 1, 255]
    assert data.images[1, 0].flatten().tolist() == [0, 4, 8, 16]


def test_pixels_without_a_brightness_are_skipped(tmp_path):
    for i in range(2):
        save(pixels(i, 4, 4), tmp_path / f"{i}.png")
    save(np.full((4, 4), 1 << 20, np.int32), tmp_path / "int.tif")
    save(np.full((4, 4), 7.0, np.float32), tmp_path / "float.tif")
    save(np.full((4, 4), np.nan, np.float32), tmp_path / "nan.tif")
    reasons = dict(load_data(tmp_path).skipped)
    assert "integer pixels must be in 0..65535, got 1048576" in reasons["int.tif"]
    assert "floating point pixels must be in [0, 1], got 7" in reasons["float.tif"]
    assert "got nan" in reasons["nan.tif"]


def test_colour_of_every_mode(tmp_path):
    rgb = pixels(0, 8, 8, 3)
    save(rgb, tmp_path / "a_rgb.png")
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "b_cmyk.tif")
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "c_rgba.png")
    Image.fromarray(rgb).quantize(64).save(tmp_path / "d_palette.png")
    save(pixels(1, 8, 8), tmp_path / "e_grey.png")
    data = load_data(tmp_path)
    assert data.images.shape == (5, 3, 8, 8)
    expected = torch.from_numpy(rgb).permute(2, 0, 1)
    assert torch.equal(data.images[0], expected)
    # Pillow converts CMYK by 255 - c and back: a byte of difference at most.
    assert (data.images[1].int() - expected.int()).abs().max() <= 1
    assert torch.equal(data.images[2], expected)
    assert (data.images[4] == data.images[4, :1]).all()


def test_transparent_pixels_are_laid_on_white(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    rgba[0, 1] = (10, 20, 30, 0)
    save(rgba, tmp_path / "a.png")
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "b.png", transparency=0)
    data = load_data(tmp_path)
    assert data.images[0, :, 0, 0].tolist() == [10, 20, 30]
    assert data.images[0, :, 0, 1].tolist() == [255, 255, 255]
    assert data.images[1, :, 0].T.tolist() == [[255, 255, 255], [200, 0, 0]]


def test_exif_orientation_is_applied(tmp_path):
    array = pixels(0, 4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(array, tmp_path / "a.png", exif=exif)
    save(np.rot90(array, -1).copy(), tmp_path / "b.png")
    data = load_data(tmp_path)
    assert torch.equal(data.images[0], data.images[1])


def test_differing_sizes_need_image_size(tmp_path):
    save(pixels(0, 30, 20), tmp_path / "a.png")
    save(pixels(1, 20, 30), tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"got 20x30 \(a.png\) and 30x20 \(b.png\); pass image_size=64"):
        load_data(tmp_path)
    data = load_data(tmp_path, image_size=16)
    assert data.images.shape == (2, 1, 16, 16)
    assert load_data(tmp_path, image_size=16, channels=3).images.shape == (2, 3, 16, 16)


def test_image_size_keeps_the_centre(tmp_path):
    array = np.zeros((10, 30), np.uint8)
    array[:, 10:20] = pixels(0, 10, 10)
    save(array, tmp_path / "a.png")
    save(array.T.copy(), tmp_path / "b.png")
    data = load_data(tmp_path, image_size=10)
    assert np.array_equal(data.images[0, 0].numpy(), array[:, 10:20])
    assert np.array_equal(data.images[1, 0].numpy(), array[:, 10:20].T)


def test_too_much_for_memory_is_refused_before_reading_all(tmp_path, monkeypatch):
    for i in range(3):
        save(pixels(i, 40, 40), tmp_path / f"{i}.png")
    monkeypatch.setattr("deepclust_ext.data.folder.MAX_BYTES", 4000)
    with pytest.raises(ValueError, match="got 3 files of 40x40; pass image_size=64"):
        load_data(tmp_path)
    assert load_data(tmp_path, image_size=8).images.shape == (3, 1, 8, 8)


def test_empty_folders_and_lone_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the folder .* must hold images .* got none$"):
        load_data(tmp_path)
    (tmp_path / "readme.md").write_text("nothing here")
    with pytest.raises(ValueError, match=r"got none; 1 files skipped, the first 'readme.md': not an image file"):
        load_data(tmp_path)
    save(pixels(0, 4, 4), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"at least 2 images, got only 1 image in .*1 files skipped"):
        load_data(tmp_path)
    assert load_data(tmp_path, min_images=1).names == ("a.png",)


def test_a_folder_is_one_piece(tmp_path):
    for i in range(2):
        save(pixels(i, 4, 4), tmp_path / f"{i}.png")
    assert not has_split(tmp_path, "test")
    assert has_split(str(tmp_path), "all")
    with pytest.raises(ValueError, match="got 'test' for the folder"):
        load_data(tmp_path, split="test")


@pytest.mark.skipif(os.name != "posix", reason="named pipes exist on POSIX only")
def test_a_pipe_is_listed_and_not_waited_for(tmp_path):
    for i in range(2):
        save(pixels(i, 4, 4), tmp_path / f"{i}.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert load_data(tmp_path).skipped == (("pipe.png", "not a regular file"),)


def test_an_empty_path_is_not_the_working_directory(tmp_path, monkeypatch):
    for i in range(2):
        save(pixels(i, 4, 4), tmp_path / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'data' must be a path or a name, got an empty string"):
        load_data("")


@pytest.mark.skipif(os.name != "posix", reason="file names that are no text exist on POSIX only")
def test_names_that_are_no_text_have_a_digest(tmp_path):
    for i in range(2):
        save(pixels(i, 4, 4), tmp_path / f"{i}.png")
    os.rename(tmp_path / "1.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert len(load_data(tmp_path).digest) == 64
