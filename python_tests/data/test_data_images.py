"""ImageData, and how arrays of every layout and dtype become it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepclust_ext.data import ImageData, as_float, load_data
from deepclust_ext.data.arrays import conform, resize, to_channels, to_labels


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_as_float_maps_bytes_to_the_unit_interval_exactly():
    values = as_float(torch.arange(256, dtype=torch.uint8))
    assert values[0] == 0.0
    assert values[255] == 1.0
    assert torch.equal((values * 255).round().to(torch.uint8), torch.arange(256, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"as_float: 'images' must be uint8 or floating point, got torch.int64"):
        as_float(torch.zeros(2, dtype=torch.int64))


def test_digest_changes_with_pixels_names_shape_and_dtype_but_not_with_labels():
    images = noise(4, 1, 6, 4)
    base = ImageData(images)
    assert base.digest == ImageData(images.clone(), torch.zeros(4, dtype=torch.int64)).digest
    changed = images.clone()
    changed[3, 0, 5, 3] ^= 1
    others = [
        ImageData(changed),
        ImageData(images.reshape(4, 1, 4, 6)),
        ImageData(images, names=("0", "1", "2", "4")),
        ImageData(images, names=("01", "", "2", "3")),
        ImageData(as_float(images)),
    ]
    digests = {data.digest for data in [base, *others]}
    assert len(digests) == len(others) + 1
    assert len(base.digest) == 64


def test_digest_does_not_depend_on_strides():
    images = noise(3, 3, 5, 5)
    strided = images.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    assert ImageData(strided).digest == ImageData(images).digest


def test_subset_by_index_and_by_mask():
    data = ImageData(noise(5, 1, 3, 3), torch.tensor([3, 1, 4, 1, 5]), skipped=(("x", "y"),), source="here")
    part = data.subset([4, 0])
    assert part.names == ("4", "0")
    assert part.labels is not None
    assert part.labels.tolist() == [5, 3]
    assert torch.equal(part.images, data.images[[4, 0]])
    assert (part.skipped, part.source) == (data.skipped, "here")
    assert data.subset(data.labels == 1).names == ("1", "3")
    for index in ([0, 5], [-6]):
        with pytest.raises(IndexError, match=r"'index' must be between 0 and 4, got -?\d to -?\d"):
            data.subset(index)
    assert (data.n_classes, part.n_classes, ImageData(data.images).n_classes) == (4, 2, None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 2, 4, 4),), ValueError, r"\(N, C, H, W\) with C 1 or 3, got shape \(2, 2, 4, 4\)"),
        ((torch.zeros(2, 1, 4, 4, dtype=torch.float64),), TypeError, "uint8 or float32, got torch.float64"),
        ((np.zeros((2, 1, 4, 4)),), TypeError, "must be a Tensor, got ndarray"),
        ((torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64)), ValueError, r"shape \(2,\)"),
        ((torch.zeros(2, 1, 4, 4), torch.tensor([0, -1])), ValueError, "must not be negative, got -1"),
        ((torch.zeros(2, 1, 4, 4), None, ("a",)), ValueError, "must hold 2 names, one an image, got 1"),
    ],
)
def test_wrong_contents_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ImageData(*arguments)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinite_pixels_are_refused_with_their_place(value):
    images = torch.zeros(4, 1, 5, 5)
    images[2, 0, 1, 1] = value
    with pytest.raises(ValueError, match=r"must be finite, got NaN or infinite pixels in 1 of 4 .* index 2"):
        load_data(images)


def test_floats_outside_the_unit_interval_are_refused_with_the_mend():
    with pytest.raises(ValueError, match=r"in \[0, 1\] when floating point, got 0 to 255; divide by 255"):
        load_data(np.full((3, 4, 4), 255.0) * np.arange(3)[:, None, None] / 2)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_dtype(dtype):
    images = (torch.arange(2 * 3 * 4) % 2).reshape(2, 3, 4).to(dtype)
    data = load_data(images)
    assert data.images.dtype == (torch.uint8 if dtype == torch.uint8 else torch.float32)
    assert torch.equal(data.images[:, 0].double(), images.double())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 7, 9), (5, 1, 7, 9)),
        ((5, 1, 7, 9), (5, 1, 7, 9)),
        ((5, 3, 7, 9), (5, 3, 7, 9)),
        ((5, 7, 9, 3), (5, 3, 7, 9)),
        ((5, 7, 9, 1), (5, 1, 7, 9)),
        ((5, 3, 7, 3), (5, 3, 7, 3)),
    ],
)
def test_layouts(shape, expected):
    data = load_data(noise(*shape))
    assert tuple(data.images.shape) == expected
    assert data.images.is_contiguous()


def test_channels_last_keeps_its_pixels():
    images = noise(2, 5, 6, 3)
    assert torch.equal(load_data(images).images[:, 1], images[..., 1])


def test_numpy_oddities_are_read_without_warning(recwarn):
    array = np.linspace(0, 1, 2 * 4 * 4).reshape(2, 4, 4)
    expected = torch.from_numpy(array.copy()).float()
    frozen = array.copy()
    frozen.flags.writeable = False
    for odd in (array.astype(">f8"), np.asfortranarray(array), frozen):
        assert torch.equal(load_data(odd).images[:, 0], expected)
    assert torch.equal(load_data(array[:, ::-1]).images[:, 0], expected.flip(1))
    assert torch.equal(load_data(array > 0.5).images[:, 0], (expected > 0.5).float())
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            np.zeros((9, 64)),
            ValueError,
            r"must be images, got embeddings of shape \(9, 64\) from array; reshape rows of pixels to \(N, H, W\)",
        ),
        (np.zeros((2, 4, 5, 5)), ValueError, r"got shape \(2, 4, 5, 5\); C must be 1 or 3"),
        (np.zeros((2, 0, 5)), ValueError, r"got shape \(2, 0, 5\)"),
        (np.zeros((2, 5, 5), dtype=np.int64), TypeError, "got torch.int64; convert with astype"),
        (np.array(["a", "b"]), TypeError, "must hold uint8 or floating point pixels, got <U1"),
        (np.zeros((1, 5, 5)), ValueError, "at least 2 images, got only 1 image in array"),
        (np.zeros((0, 5, 5)), ValueError, "at least 2 images, got no image in array"),
        (object(), TypeError, "must be an array, a tensor, .* got object"),
    ],
)
def test_wrong_arrays_are_refused(array, error, message):
    with pytest.raises(error, match=message):
        load_data(array)


def test_tensors_without_values_or_strides_are_refused():
    with pytest.raises(TypeError, match=r"'data' must be a dense tensor that holds values, got a meta tensor"):
        load_data(torch.zeros(3, 1, 4, 4, device="meta"))
    with pytest.raises(TypeError, match=r"got torch.sparse_coo; convert it with .to_dense"):
        load_data(torch.zeros(3, 1, 4, 4).to_sparse())


def test_one_image_is_enough_when_asked():
    assert len(load_data(noise(1, 4, 4), min_images=1)) == 1


def test_labels():
    images = noise(3, 4, 4)
    assert load_data(images, y=["b", "a", "b"]).labels.tolist() == [1, 0, 1]
    assert load_data(images, y=np.array([[2.0], [0.0], [7.0]])).labels.tolist() == [2, 0, 7]
    assert load_data(images, y=torch.tensor([2, 0, 1], dtype=torch.uint8)).labels.dtype == torch.int64
    with pytest.raises(ValueError, match=r"'y' must hold one label an image, shape \(3,\), got shape \(2,\)"):
        load_data(images, y=[0, 1])
    with pytest.raises(ValueError, match="'y' must be whole numbers or strings, got float64"):
        load_data(images, y=[0.5, 1, 2])
    with pytest.raises(ValueError, match="must hold a label for every image, got nan at index 0"):
        to_labels([float("nan"), 0.0], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "validation"}, "'split' must be one of train, test, all, got 'validation'"),
        ({"split": "test"}, "'split' must be 'train' or 'all' for data in one piece, got 'test'"),
        ({"image_size": 0}, "'image_size' must be a positive whole number, got 0"),
        ({"image_size": 2.5}, "'image_size' must be a positive whole number, got 2.5"),
        ({"channels": 2}, "'channels' must be 1, 3 or None, got 2"),
        ({"folder_labels": True}, "'folder_labels' must be False unless 'data' is a folder"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_data(noise(3, 4, 4), **arguments)


def test_resize_scales_the_shorter_side_and_keeps_the_centre():
    # A ramp along the longer side: what is left must be its middle, symmetric about it.
    ramp = torch.linspace(0, 1, 30).repeat(2, 1, 10, 1)
    small = resize(ramp, 5)
    assert small.shape == (2, 1, 5, 5)
    middle = small[0, 0, 0]
    torch.testing.assert_close(middle + middle.flip(0), torch.ones(5), atol=1e-5, rtol=0)
    assert (middle.diff() > 0).all()
    assert resize(ramp[..., :10], 10).data_ptr() == ramp.data_ptr()


def test_resize_agrees_with_pillow_on_bytes():
    image = pytest.importorskip("PIL.Image")
    pixels = noise(3, 1, 37, 37)
    filter_ = image.Resampling.BILINEAR
    expected = [np.asarray(image.fromarray(p[0].numpy()).resize((16, 16), filter_)) for p in pixels]
    difference = resize(pixels, 16)[:, 0].int() - torch.from_numpy(np.stack(expected)).int()
    assert difference.abs().max() <= 1


def test_resize_in_pieces_changes_nothing(monkeypatch):
    images = noise(7, 3, 20, 31)
    whole = resize(images, 12)
    monkeypatch.setattr("deepclust_ext.data.arrays._CHUNK_PIXELS", 3 * 20 * 31 * 2)
    assert torch.equal(resize(images, 12), whole)


def test_channels_and_size_follow_a_trained_network():
    data = load_data(noise(3, 3, 20, 31), image_size=8, channels=1)
    assert data.images.shape == (3, 1, 8, 8)
    assert data.images.dtype == torch.uint8
    grey = noise(3, 1, 8, 8)
    assert torch.equal(to_channels(to_channels(grey, 3), 1), grey)
    assert torch.equal(to_channels(grey, 3)[:, 2:], grey)
    data = ImageData(grey)
    assert conform(data, 8, 1) is data


def test_labels_of_pandas_and_of_python_objects():
    pandas = pytest.importorskip("pandas")
    words, numbers = ["cat", "ape", "cat"], [3, 0, 3]
    for y in (
        np.array(words, dtype=object),
        pandas.Series(words),
        pandas.Series(words, dtype=object),
        pandas.Series(words, dtype="string"),
        pandas.Categorical(words, categories=["cat", "dog", "ape"]),
        pandas.Series(words, dtype="category"),
    ):
        assert to_labels(y, 3).tolist() == [1, 0, 1]
    for y in (
        np.array(numbers, dtype=object),
        pandas.Series(numbers, dtype="Int64"),
        pandas.Series(numbers, dtype=object),
        pandas.Categorical(numbers),
        [np.int8(3), 0, 3],
    ):
        assert to_labels(y, 3).tolist() == numbers
    assert to_labels(pandas.Series([True, False, True], dtype="boolean"), 3).tolist() == [1, 0, 1]


def test_labels_that_are_missing_or_mixed_are_named():
    pandas = pytest.importorskip("pandas")
    for y in (
        ["a", None, "b"],
        [1, None, 2],
        pandas.Series([1, None, 2], dtype="Int64"),
        pandas.Series(["a", None, "b"], dtype="string"),
        pandas.Categorical(["a", None, "b"]),
    ):
        with pytest.raises(ValueError, match=r"a label for every image, got .* at index 1 \(1 are missing\); leave"):
            to_labels(y, 3)
    with pytest.raises(ValueError, match=r"whole numbers or strings, all of one kind, got int, str"):
        to_labels(np.array(["a", 1, "b"], dtype=object), 3)


def test_a_rounding_error_outside_the_unit_interval_is_clamped():
    images = torch.tensor([[-1e-7, 0.5], [1.0, 1.0 + 2**-23]]).reshape(1, 1, 2, 2)
    found = ImageData(images).images
    assert found.flatten().tolist() == [0.0, 0.5, 1.0, 1.0]
    assert images.min() < 0  # the caller's stay as they are
    assert load_data([images[0], images[0]]).images.max() == 1
    with pytest.raises(ValueError, match=r"got 0 to 1\.00100005; divide by 255"):
        ImageData(torch.tensor([0.0, 1.001]).reshape(1, 1, 1, 2))
