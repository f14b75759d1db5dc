"""`deepclust duplicates`: copies by their bytes, near ones by pixels or embeddings, as tables."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image
from support.clidata import rows

from deepclust_ext.cli import main
from deepclust_ext.data.copies import identical_files


@pytest.fixture
def photos(tmp_path):
    """Ten images of noise; of the third a copy, one that was scaled and saved again, and one a little brighter."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        small = Image.fromarray(rng.integers(0, 200, (6, 6, 3), np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    shutil.copy(folder / "3.png", folder / "a copy.png")
    Image.open(folder / "3.png").resize((64, 64)).save(folder / "small.jpg", quality=80)
    Image.fromarray(np.array(Image.open(folder / "3.png")) + np.uint8(4)).save(folder / "bright.png")
    return folder


def test_photographs_by_their_pixels(tmp_path, photos, capfd):
    out = tmp_path / "same.csv"
    assert main(["duplicates", "--data", str(photos), "--out", str(out)]) == 0
    said = "13 images: 1 groups of 4 within 0.05, 3 more than one of each; 1 files are copies of another"
    assert capfd.readouterr().out == f"{said}; groups: {out}\n"
    assert {row["path"] for row in rows(out)} == {"3.png", "a copy.png", "small.jpg", "bright.png"}
    pairs = {(row["path"], row["other"]): row for row in rows(tmp_path / "same-pairs.csv")}
    assert len(pairs) == 4
    assert pairs["3.png", "a copy.png"] == {
        "path": "3.png",
        "other": "a copy.png",
        "distance": "0.000000",
        "identical": "yes",
    }
    assert float(pairs["3.png", "bright.png"]["distance"]) == pytest.approx(4 / 255, abs=2e-3)
    assert pairs["bright.png", "small.jpg"]["identical"] == "no"
    # Nearer alone.
    assert main(["duplicates", "--data", str(photos), "--out", str(out), "--distance", "0", "--quiet"]) == 0
    assert [row["path"] for row in rows(out)] == ["3.png", "a copy.png"]


def test_embeddings(tmp_path, photos, capfd):
    out = tmp_path / "same.csv"
    words = ["duplicates", "--data", str(photos), "--out", str(out), "--backbone", "support.toynets:tiny"]
    assert main([*words, "--distance", "0.001"]) == 0
    assert "13 embeddings: 1 groups of " in capfd.readouterr().out
    assert {"3.png", "a copy.png"} <= {row["path"] for row in rows(out)}
    x = np.array([[1, 0], [0, 1], [1, 0.01]], np.float16)
    np.savez(tmp_path / "e.npz", embeddings=x, paths=["a", "b", "c, d"])
    assert main(["duplicates", "--data", str(tmp_path / "e.npz"), "--out", str(out), "--quiet"]) == 0
    assert [row["path"] for row in rows(out)] == ["a", "c, d"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{out}.txt"], "--out must be a file that ends in .csv"),
        (["--out", "{out}/no/a.csv"], "--out must be in a folder that is there"),
        (["--out", "{out}.csv", "--weights", "a.pth"], "--weights must come with --backbone"),
        (["--out", "{out}.csv", "--distance", "-1"], "'distance' must be finite and at least 0"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path, photos, capfd, words, message):
    words = [word.format(out=tmp_path / "out") for word in words]
    assert main(["duplicates", "--data", str(photos), *words]) == 2
    assert message in capfd.readouterr().err


def test_files_of_one_size_need_not_be_the_same(tmp_path):
    for name, content in (("a", b"1234"), ("b", b"1235"), ("c", b"1234"), ("d", b"12"), ("e", b"1234"), ("f", b"1235")):
        (tmp_path / name).write_bytes(content)
    assert identical_files(tmp_path, [*"abcdef", "gone"]) == [(0, 2), (0, 4), (1, 5)]
