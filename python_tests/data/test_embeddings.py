"""Embeddings as data: every file and array that holds them, mapped and of the dtype they have."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from deepclust_ext.data import EmbeddingData, has_split, holds_embeddings, load_data, load_items


def rows(n=7, d=5, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def is_mapped(tensor):
    """Whether a tensor's memory is a file's."""
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= address < last:
            return "." in line.split("/")[-1] and "/" in line
    return False


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_and_files_keep_their_values_and_dtype(tmp_path, dtype):
    x = rows(dtype=dtype)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", embeddings=x)
    np.savez_compressed(tmp_path / "b.npz", embeddings=x)
    digests = set()
    for data in (x, torch.from_numpy(x), tmp_path / "a.npy", str(tmp_path / "a.npz"), tmp_path / "b.npz"):
        found = load_items(data)
        assert isinstance(found, EmbeddingData)
        assert found.embeddings.dtype == torch.from_numpy(x).dtype
        assert np.array_equal(found.embeddings.numpy(), x)
        assert (found.image_shape, found.names[-1], found.labels) == ((5,), "6", None)
        digests.add(found.digest)
    assert len(digests) == 1
    assert load_items(x[:, ::-1]).digest not in digests
    assert load_items(x[:, :4]).digest not in digests


def test_files_are_mapped_not_read(tmp_path):
    x = rows(100, 8)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "first.npz", embeddings=x, y=np.arange(100))
    np.savez_compressed(tmp_path / "packed.npz", embeddings=x)
    assert is_mapped(load_items(tmp_path / "a.npy").embeddings)
    assert is_mapped(load_items(tmp_path / "first.npz").embeddings)
    assert not is_mapped(load_items(tmp_path / "packed.npz").embeddings)
    # Writing to them never reaches the file.
    found = load_items(tmp_path / "first.npz")
    found.embeddings.zero_()
    assert np.array_equal(np.load(tmp_path / "first.npz")["embeddings"], x)


@pytest.mark.parametrize("before", range(1, 9))
def test_an_entry_anywhere_in_an_archive_is_read_right(tmp_path, before):
    x = rows(50, 3)
    np.savez(tmp_path / "a.npz", **{"x" * before: np.zeros(before, np.uint8)}, embeddings=x)
    assert np.array_equal(load_items(tmp_path / "a.npz").embeddings.numpy(), x)
    np.savez(tmp_path / "f.npz", embeddings=np.asfortranarray(x))
    assert np.array_equal(load_items(tmp_path / "f.npz").embeddings.numpy(), x)


def test_paths_and_classes_come_along(tmp_path):
    x = rows(3)
    np.savez(tmp_path / "a.npz", embeddings=x, paths=["b/1.jpg", "ü.png", "c"], y=["cat", "dog", "cat"])
    found = load_items(tmp_path / "a.npz")
    assert found.names == ("b/1.jpg", "ü.png", "c")
    assert found.labels.tolist() == [0, 1, 0]
    assert load_items(tmp_path / "a.npz", y=[5, 5, 5]).n_classes == 1
    assert found.subset([2, 0]).names == ("c", "b/1.jpg")
    assert torch.equal(found.subset([2, 0]).embeddings, found.embeddings[[2, 0]])
    assert repr(found) == "EmbeddingData(a.npz: 3 embeddings of 5 dimensions, torch.float32, 2 classes)"


def test_foreign_byte_orders_and_strides():
    x = rows(6, 4)
    for array in (
        x.astype(">f4"),
        np.asfortranarray(x),
        np.repeat(x, 2, axis=0)[::2],
        x[::-1][::-1],
        x[:, ::-1][:, ::-1],
    ):
        assert np.array_equal(load_items(array).embeddings.numpy(), x)
    read_only = x.copy()
    read_only.flags.writeable = False
    assert np.array_equal(load_items(read_only).embeddings.numpy(), x)
    assert load_items(torch.from_numpy(x).to(torch.bfloat16)).digest


def test_what_holds_embeddings(tmp_path):
    np.savez(tmp_path / "images.npz", x=np.zeros((4, 8, 8)))
    np.savez(tmp_path / "rows.npz", embeddings=rows())
    np.save(tmp_path / "rows.npy", rows())
    np.save(tmp_path / "images.npy", np.zeros((4, 8, 8), np.uint8))
    found = {name: holds_embeddings(tmp_path / name) for name in ("images.npz", "rows.npz", "rows.npy", "images.npy")}
    assert found == {"images.npz": False, "rows.npz": True, "rows.npy": True, "images.npy": False}
    assert not holds_embeddings("digits")
    assert not holds_embeddings(tmp_path / "missing.npz")
    assert not has_split(tmp_path / "rows.npz", "test")
    assert has_split(tmp_path / "rows.npy", "all")
    assert load_data(tmp_path / "images.npy").image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (rows().astype(np.int32), TypeError, r"must hold floating-point numbers, got torch.int32; convert"),
        (np.array([["a"]]), TypeError, "must hold floating-point numbers, got <U1"),
        (np.array([[1.0, np.nan], [0, 0]]), ValueError, "must be finite, .* in 1 of 2 rows, the first at index 0"),
        (np.array([[1.0, 2.0], [0, np.inf]]), ValueError, "the first at index 1"),
        (rows(1), ValueError, "at least 2 embeddings, got only 1 embedding in array"),
        (rows(3, 0), ValueError, r"must be \(N, d\) with d >= 1, got shape \(3, 0\)"),
        (torch.zeros(3, 2).to_sparse(), TypeError, "must be a dense tensor"),
    ],
)
def test_wrong_arrays_are_refused(array, error, message):
    with pytest.raises(error, match=message):
        load_items(array)


def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"must be a readable .npy file"):
        load_items(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", embeddings=rows(), paths=["one"])
    with pytest.raises(ValueError, match="must hold one path for each of 7 embeddings, got 1"):
        load_items(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", embeddings=np.array([[object()]]))
    with pytest.raises(ValueError, match=r"'embeddings' in 'b.npz' cannot be read"):
        load_items(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", embeddings=rows())
    with pytest.raises(ValueError, match="'split' must be 'train' or 'all'"):
        load_items(tmp_path / "c.npz", split="test")
    with pytest.raises(ValueError, match="'image_size' must be left out for embeddings, got 8"):
        load_items(tmp_path / "c.npz", image_size=8)
    with pytest.raises(ValueError, match=r"must be images, got embeddings of shape \(7, 5\) from c.npz"):
        load_data(tmp_path / "c.npz")
    whole = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"must be a readable .npz archive"):
        load_items(tmp_path / "d.npz")


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    x = rows(4, 3)
    nested = {"embeddings": list(x), "path": ["a", "b", "c", "d"], "label": ["u", "v", "u", "u"]}
    for table in (
        arrow.table(nested),
        arrow.table({**nested, "embeddings": arrow.FixedSizeListArray.from_arrays(x.ravel(), 3)}),
        arrow.table({**{f"f{i}": x[:, i] for i in range(3)}, "path": nested["path"], "y": [0, 1, 0, 0]}),
    ):
        parquet.write_table(table, tmp_path / "a.parquet")
        found = load_items(tmp_path / "a.parquet")
        assert np.array_equal(found.embeddings.numpy(), x)
        assert (found.names, found.labels.tolist()) == (("a", "b", "c", "d"), [0, 1, 0, 0])
    parquet.write_table(arrow.table({"embeddings": [[1.0], [1.0, 2.0]]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="must hold lists of one length"):
        load_items(tmp_path / "b.parquet")
    parquet.write_table(arrow.table({"path": ["a"]}), tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"must have a column 'embeddings' of lists, .* got the columns: path"):
        load_items(tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(io.BytesIO(b"no").getvalue())
    with pytest.raises(ValueError, match="must be a readable parquet file"):
        load_items(tmp_path / "d.parquet")
