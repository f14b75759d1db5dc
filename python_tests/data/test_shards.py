"""Images in tar archives: their order, names and classes, and archives that are damaged or mean harm."""

from __future__ import annotations

import io
import os
import tarfile
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.clidata import rows

from deepclust_ext.cli import main
from deepclust_ext.data import load_data
from deepclust_ext.data.reading import Reading
from deepclust_ext.embed.pictures import pictures_of
from deepclust_ext.methods import KMeans


def picture(number, size=8):
    """A PNG file of one grey level."""
    out = io.BytesIO()
    Image.fromarray(np.full((size, size), number % 256, np.uint8)).save(out, "PNG")
    return out.getvalue()


def entry(name, content=b"", **fields):
    """A header and a content."""
    found = tarfile.TarInfo(name)
    found.size = len(content)
    for key, value in fields.items():
        setattr(found, key, value)
    return found, content


def archive(path, entries, **options):
    with tarfile.open(path, "w", **options) as file:
        for info, content in entries:
            file.addfile(info, io.BytesIO(content))
    return path


def levels(data):
    return [round(float(image.float().mean())) for image in data.images]


def test_images_come_in_the_order_of_the_archive_by_the_paths_in_it(tmp_path):
    names = ["b/2.png", "./a/1.PNG", "c.png", "b/../b//1.png"]
    file = archive(tmp_path / "a.tar", [entry(name, picture(10 * i)) for i, name in enumerate(names)])
    data = load_data(file)
    assert data.names == ("b/2.png", "a/1.PNG", "c.png", "b/1.png")
    assert levels(data) == [0, 10, 20, 30]
    assert data.skipped == ()
    assert data.labels is None


def test_a_folder_of_archives_is_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "sub").mkdir()
    for i, shard in enumerate(("sub/z.tar", "b.tar", "a.tar")):
        archive(tmp_path / shard, [entry(f"{n}.png", picture(10 * i + n)) for n in (1, 0)])
    (tmp_path / "index.json").write_text("{}")
    data = load_data(tmp_path)
    assert data.names == (
        "a.tar/1.png",
        "a.tar/0.png",
        "b.tar/1.png",
        "b.tar/0.png",
        "sub/z.tar/1.png",
        "sub/z.tar/0.png",
    )
    assert levels(data) == [21, 20, 11, 10, 1, 0]
    assert data.skipped == (("index.json", "not an image file (extension .json)"),)
    # Beside images archives are files like any other.
    (tmp_path / "own.png").write_bytes(picture(3))
    (tmp_path / "own2.png").write_bytes(picture(4))
    data = load_data(tmp_path)
    assert data.names == ("own.png", "own2.png")
    assert ("a.tar", "not an image file (extension .tar)") in data.skipped


def test_classes_beside_all_images_are_their_labels(tmp_path):
    def made(*contents):
        entries = []
        for i, (end, content) in enumerate(contents):
            entries += [entry(f"x/{i}.png", picture(i)), entry(f"x/{i}{end}", content), entry(f"x/{i}.txt", b"words")]
        return load_data(archive(tmp_path / "a.tar", entries))

    assert made((".cls", b"7\n"), (".cls", b"3"), (".CLS", b"10")).labels.tolist() == [7, 3, 10]
    assert made((".cls", b"dog"), (".cls", b"cat")).labels.tolist() == [1, 0]
    assert made((".json", b'{"label": 4}'), (".json", b"2"), (".json", b'{"y": "9"}')).labels.tolist() == [4, 2, 9]
    assert made((".json", b'{"label": "a"}'), (".cls", b"0")).labels.tolist() == [1, 0]
    # What stands beside an image is no file that is missed.
    assert made((".json", b'{"caption": "a dog"}'), (".json", b"[1]")).skipped == ()
    for wrong in (b"", b'{"label": [1]}', b'{"label": null}', b"[" * 100_000, b"\xff\xfe", b'{"label": true}'):
        with pytest.warns(UserWarning, match=r"1 of 2 images in .* have no class in a .cls or .json file .*'x/1.png'"):
            assert made((".cls", b"7"), (".json", wrong)).labels is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made((".txt2", b""), (".txt2", b"")).labels is None


def test_folders_in_archives_are_classes_where_that_is_asked(tmp_path):
    entries = [entry("dog/1.png", picture(1)), entry("cat/1.png", picture(2)), entry("dog/2.png", picture(3))]
    archive(tmp_path / "a.tar", entries)
    assert load_data(tmp_path / "a.tar", folder_labels=True).labels.tolist() == [1, 0, 1]
    archive(tmp_path / "b.tar", entries[:2])
    data = load_data(tmp_path, folder_labels=True)
    assert data.labels.tolist() == [1, 0, 1, 1, 0]


def test_members_that_are_no_images_are_named_and_never_followed(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(99))
    file = archive(
        tmp_path / "a.tar",
        [
            entry("good.png", picture(1)),
            entry("folder", type=tarfile.DIRTYPE),
            entry(str(secret), picture(2)),
            entry("../../up.png", picture(3)),
            entry("link.png", type=tarfile.SYMTYPE, linkname=str(secret)),
            entry("hard.png", type=tarfile.LNKTYPE, linkname="good.png"),
            entry("device.png", type=tarfile.CHRTYPE),
            entry("pipe.png", type=tarfile.FIFOTYPE),
            entry("empty.png"),
            entry("damaged.png", picture(4)[:-25]),
            entry("text.png", b"no image"),
            entry("words.txt", b"words"),
            entry(".hidden.png", picture(5)),
            entry("__MACOSX/._good.png", picture(6)),
            entry("twice.png", picture(7)),
            entry("line\nbreak,\u00e4\udcff.png", picture(8)),
            entry("twice.png", picture(9)),
        ],
        errors="surrogateescape",
    )
    data = load_data(file)
    assert data.names == ("good.png", "line\nbreak,\u00e4\udcff.png", "twice.png")
    assert levels(data) == [1, 8, 9]
    reasons = dict(data.skipped)
    assert reasons.pop("twice.png") == "another file of this name comes later in the archive, and is taken"
    assert reasons.pop("words.txt") == "not an image file (extension .txt)"
    for name in (str(secret), "../../up.png"):
        assert reasons.pop(name) == "a path that leads out of the archive"
    for name in ("link.png", "hard.png", "device.png", "pipe.png"):
        assert reasons.pop(name) == "not a regular file in the archive, such as a link"
    for name in ("empty.png", "text.png"):
        assert reasons.pop(name) == "not a readable image"
    assert "truncated" in reasons.pop("damaged.png")
    assert not reasons


def test_what_damage_cuts_off_is_a_line(tmp_path):
    entries = [entry(f"{i}.png", picture(i, 40)) for i in range(4)]
    whole = archive(tmp_path / "a.tar", entries).read_bytes()
    block = len(whole[: whole.index(b"1.png")])

    def load(content):
        (tmp_path / "a.tar").write_bytes(content)
        return load_data(tmp_path / "a.tar")

    # Within a member, within a header, and a header that is none.
    data = load(whole[: 3 * block + 540])
    assert data.names == ("0.png", "1.png", "2.png")
    assert data.skipped[0][0] in ("3.png", "a.tar")
    data = load(whole[: 3 * block + 100])
    assert data.names == ("0.png", "1.png", "2.png")
    assert data.skipped == (("a.tar", f"damaged from byte {3 * block} on, and what follows is not read"),)
    data = load(whole[: 2 * block] + b"x" * 512 + whole[2 * block + 512 :])
    assert data.names == ("0.png", "1.png")
    assert data.skipped == (("a.tar", f"damaged from byte {2 * block} on, and what follows is not read"),)
    # Without the marks of an end nothing is missing.
    assert load(whole[: 4 * block]).skipped == ()


def test_files_that_are_no_archives_are_refused(tmp_path):
    file = tmp_path / "a.tar"
    for content, message in (
        (b"", "must be a readable .tar archive, not compressed, got .*a.tar': empty file"),
        (b"no archive at all" * 100, "must be a readable .tar archive"),
        (bytes(10240), r"the archive .*a.tar' must hold images \(.*\), got none"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_data(file)
    with tarfile.open(file, "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"must be a readable .tar archive, not compressed"):
        load_data(file)
    archive(file, [entry("words.txt", b"words")])
    with pytest.raises(ValueError, match=r"got none; 1 files skipped, the first 'words.txt': not an image file"):
        load_data(file)
    with pytest.raises(ValueError, match=r"'split' must be 'train' or 'all' .* got 'test' for the archive"):
        load_data(file, split="test")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10239), st.integers(0, 255)), max_size=6), st.integers(512, 10240))
def test_damage_anywhere_ends_in_images_and_lines_or_a_sentence(tmp_path_factory, changes, length):
    file = tmp_path_factory.mktemp("damage") / "a.tar"
    content = bytearray(archive(file, [entry(f"{i}.png", picture(i)) for i in range(3)]).read_bytes())
    for place, value in changes:
        content[place] = value
    file.write_bytes(content[:length])
    try:
        data = load_data(file, image_size=8, min_images=1)
    except ValueError as error:
        assert str(error).startswith("load_data: ")  # noqa: PT017
    else:
        assert len(data) + len(data.skipped) <= 8


def test_scaled_images_are_kept_until_their_archive_changes(tmp_path, monkeypatch):
    file = archive(tmp_path / "a.tar", [entry(f"{i}.png", picture(i, 20)) for i in range(4)])
    os.utime(file, (1, 1))
    monkeypatch.setattr("deepclust_ext.data.cache.WORTH", 0.0)
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **options: opened.append(args) or original(*args, **options))
    first = load_data(file, image_size=8, cache=tmp_path / "cache")
    assert len(opened) == 4
    assert load_data(file, image_size=8, cache=tmp_path / "cache").digest == first.digest
    assert len(opened) == 4
    archive(file, [entry(f"{i}.png", picture(i + 50, 20)) for i in range(4)])
    assert levels(load_data(file, image_size=8, cache=tmp_path / "cache")) == [50, 51, 52, 53]


def test_pictures_for_a_backbone_come_from_archives(tmp_path):
    archive(tmp_path / "a.tar", [entry("x/0.png", picture(0, 9)), entry("x/1.png", picture(1, 12))])
    found = pictures_of(tmp_path, Reading(8), folder_labels=True)
    assert found.files == ["a.tar/x/0.png", "a.tar/x/1.png"]
    assert [found.read(name)[0].pixels.shape for name in found.files] == [(8, 8)] * 2
    assert found.labels(found.files).tolist() == [0, 0]


def test_a_run_on_archives_and_new_ones(tmp_path, capfd):
    rng = np.random.default_rng(0)

    def shard(name, n, first=0):
        entries = []
        for i in range(first, first + n):
            out = io.BytesIO()
            Image.fromarray((rng.integers(0, 60, (12, 12)) + 150 * (i % 2)).astype(np.uint8)).save(out, "PNG")
            entries += [entry(f"{i:03d}.png", out.getvalue()), entry(f"{i:03d}.cls", str(i % 2).encode())]
        return archive(tmp_path / name, entries)

    run = tmp_path / "run"
    (tmp_path / "shards").mkdir()
    shard("shards/b.tar", 10, 20)
    shard("shards/a.tar", 20)
    words = ["--data", str(tmp_path / "shards"), "--image-size", "8", "--clusters", "2", "--out", str(run)]
    assert main(["fit", "kmeans", *words]) == 0
    found = rows(run / "labels.csv")
    assert [row["path"] for row in found][19:21] == ["a.tar/019.png", "b.tar/020.png"]
    assert "NMI" in capfd.readouterr().out
    assert main(["predict", str(run), "--data", str(shard("new.tar", 6))]) == 0
    new = rows(run / "predictions.csv")
    assert [row["path"] for row in new] == [f"{i:03d}.png" for i in range(6)]
    assert [row["cluster"] for row in new] == [row["cluster"] for row in found[:6]]
    assert list(KMeans.load(run).predict(tmp_path / "new.tar")) == [int(row["cluster"]) for row in new]
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "images are not shown" not in page
    assert "cannot be read" not in page
    assert page.count("data:image/") > 0
    assert main(["evaluate", str(run)]) == 0
    assert main(["fit", "kmeans", *words[:-1], str(tmp_path / "other"), "--export", "copy"]) == 2
    assert "--export" in capfd.readouterr().err
