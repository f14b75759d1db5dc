"""Images in a folder of .npy files: one after another, told apart by file and place, refused where they do not fit."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread

from deepclust_ext.cli import main
from deepclust_ext.data import has_split, holds_embeddings, load_data


@pytest.fixture
def folder(tmp_path):
    """Three files of 25, 0 and 15 images, written out of order."""
    images = pictures(40)[0]
    (tmp_path / "shards").mkdir()
    for name, part in (("b", images[25:]), ("a", images[:25]), ("ab", images[:0])):
        np.save(tmp_path / "shards" / f"{name}.npy", part)
    (tmp_path / "shards" / ".hidden").write_text("not of the data")
    return tmp_path / "shards", images


def test_files_follow_one_another_by_name(folder):
    path, images = folder
    found = load_data(path)
    assert np.array_equal(found.images[:, 0], images)
    assert found.names[:2] == ("a.npy#0", "a.npy#1")
    assert found.names[24:27] == ("a.npy#24", "b.npy#0", "b.npy#1")
    assert (has_split(path, "test"), holds_embeddings(path)) == (False, False)


def test_from_fit_to_the_page(folder, tmp_path, capsys):
    path = folder[0]
    with single_thread():
        assert main(["fit", "kmeans", "--data", str(path), "--clusters", "4", "--out", str(tmp_path / "run")]) == 0
        with open(tmp_path / "run" / "labels.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["path"] for row in rows] == list(load_data(path).names)
        assert main(["predict", str(tmp_path / "run"), "--data", str(path), "--out", str(tmp_path / "again.csv")]) == 0
        with open(tmp_path / "again.csv", newline="") as file:
            assert [row["cluster"] for row in csv.DictReader(file)] == [row["cluster"] for row in rows]
        assert main(["report", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "images are not shown" not in page
    assert "data:image/jpeg" in page
    capsys.readouterr()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 8, 9), np.uint8), r"one shape and dtype, got 1x8x8 uint8 in a.npy and 1x8x9 uint8 in c.npy"),
        (np.zeros((3, 8, 8), np.float32), r"got 1x8x8 uint8 in a.npy and 1x8x8 float32 in c.npy"),
        (np.zeros((3, 8), np.float32), r"must hold images if it is a folder of .npy files, got embeddings .* in c.npy"),
    ],
)
def test_what_does_not_fit_is_named(folder, array, message):
    np.save(folder[0] / "c.npy", array)
    with pytest.raises(ValueError, match=message):
        load_data(folder[0])


def test_damage_is_named(folder):
    (folder[0] / "c.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"must be a readable .npy file, got '.*c.npy'"):
        load_data(folder[0])


def test_a_folder_with_anything_else_is_one_of_files(folder):
    (folder[0] / "notes.txt").write_text("what these are")
    with pytest.raises(ValueError, match=r"4 files skipped, the first 'a.npy'"):
        load_data(folder[0])


def test_classes_are_not_of_sub_folders(folder):
    with pytest.raises(ValueError, match="'folder_labels' must be False unless 'data' is a folder"):
        load_data(folder[0], folder_labels=True)
    y = torch.arange(40) % 4
    assert torch.equal(load_data(folder[0], y=y).labels, y)
