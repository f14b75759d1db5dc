"""The cache of decoded images: the same data, decoded once; what changed is decoded again; bounded."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image
from support.trees import save_png

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data import cache, counter, load_data, stored


@pytest.fixture(autouse=True)
def worth(monkeypatch):
    """Every folder is worth a cache."""
    monkeypatch.setattr(cache, "WORTH", 0.0)


@pytest.fixture
def photos(tmp_path):
    """Grey and coloured images and two files that are none, all older than a moment."""
    for number in range(5):
        save_png(tmp_path / "photos" / f"{number}.png", number, size=20)
    colour = np.random.default_rng(9).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "photos" / "colour.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    (tmp_path / "photos" / "note.txt").write_text("")
    for path in (tmp_path / "photos").iterdir():
        os.utime(path, (1e9, 1e9))
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded."""
    names = []
    read = stored.read_file

    def noted(root, name, *arguments):
        names.append(name)
        return read(root, name, *arguments)

    monkeypatch.setattr(stored, "read_file", noted)
    return names


def files(where):
    return sorted(where.glob("*.npz"))


def test_images_are_decoded_once_and_are_the_same(tmp_path, photos, decoded):
    plain = load_data(photos, image_size=8)
    decoded.clear()
    first = load_data(photos, image_size=8, cache=tmp_path / "cache")
    assert sorted(decoded) == sorted([*first.names, "broken.png"])
    decoded.clear()
    again = load_data(photos, image_size=8, cache=tmp_path / "cache")
    # What cannot be read is tried again: the package that it needs may be there by now.
    assert decoded == ["broken.png"]
    assert plain.digest == first.digest == again.digest
    assert plain.skipped == again.skipped


def test_what_changed_is_decoded_again(tmp_path, photos, decoded):
    load_data(photos, image_size=8, cache=tmp_path)
    save_png(photos / "1.png", seed=50, size=21)
    os.utime(photos / "1.png", (1e9, 1e9))  # another size alone
    os.utime(photos / "2.png", (1e9, 1e9 + 1))  # another time alone
    (photos / "3.png").unlink()
    os.utime(save_png(photos / "new.png", size=20), (1e9, 1e9))
    decoded.clear()
    found = load_data(photos, image_size=8, cache=tmp_path)
    assert sorted(decoded) == ["1.png", "2.png", "broken.png", "new.png"]
    assert found.digest == load_data(photos, image_size=8).digest


def test_each_way_of_reading_has_its_own(tmp_path, photos):
    for options in ({"image_size": 8}, {"image_size": 9}, {"image_size": 8, "stretch": 4095}):
        load_data(photos, cache=tmp_path / "cache", **options)
    assert len(files(tmp_path / "cache")) == 3


def test_a_file_that_may_still_change_is_not_kept(tmp_path, photos, decoded):
    (photos / "0.png").touch()
    for _ in range(2):
        decoded.clear()
        load_data(photos, image_size=8, cache=tmp_path)
    assert "0.png" in decoded


def test_a_damaged_cache_is_none(tmp_path, photos):
    expected = load_data(photos, image_size=8, cache=tmp_path / "cache").digest
    (path,) = files(tmp_path / "cache")
    content = path.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PK" + bytes(100), content.replace(b"png", b"pnk")):
        path.write_bytes(damaged)
        assert load_data(photos, image_size=8, cache=tmp_path / "cache").digest == expected


def test_the_cache_is_bounded_and_the_least_recently_used_goes(tmp_path, photos, monkeypatch):
    where = tmp_path / "cache"
    for size in (8, 9):
        load_data(photos, image_size=size, cache=where)
    kept = dict(zip((8, 9), sorted(files(where), key=lambda path: path.stat().st_mtime_ns), strict=True))
    monkeypatch.setattr(cache, "MAX_BYTES", 100 + sum(path.stat().st_size for path in files(where)))
    os.utime(kept[8], (2e9, 1))
    os.utime(kept[9], (1e9, 2))
    (where / "mine.npz").write_bytes(b"mine")
    load_data(photos, image_size=10, cache=where)
    assert kept[8].exists()
    assert not kept[9].exists()
    assert (where / "mine.npz").exists()
    load_data(photos, image_size=64, cache=where)  # too much for any cache
    assert len(files(where)) == 3


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, photos):
    (tmp_path / "cache").write_text("a file")
    with pytest.warns(DeepclustWarning, match="the cache cannot be written"):
        assert len(load_data(photos, image_size=8, cache=tmp_path / "cache")) == 6


def test_little_work_leaves_no_cache(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(cache, "WORTH", 5.0)
    load_data(photos, image_size=8, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_progress_is_shown_in_lines(photos, monkeypatch):
    monkeypatch.setattr(counter, "PERIOD", 0.0)
    lines = []
    load_data(photos, image_size=8, progress=lines.append)
    assert len(lines) == 7
    assert lines[0].startswith("1 of 7 files read, 0 s, about ")
