"""Random trees of files: every file that is not hidden is either an image of the data or among the skipped, once."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.trees import save_png

from deepclust_ext.commands._export_folder import ExportFolder
from deepclust_ext.data import load_data
from deepclust_ext.runs import csv_bytes, labels_csv
from deepclust_ext.runs.marker import MARKER

# Bytes, as file systems have them: names that are no UTF-8, with line ends, quotes and blanks.
STEMS = st.sampled_from([b"a", b"b", b"Icon\r", b"n\n", b'q"', b"c,d", b" ", b"\xff", b"\xc3\xa9", b"NA", b"-x", b"#1"])
ENDINGS = st.sampled_from([b".png", b".PNG", b".jpg", b".txt", b"", b".heic"])
NAMES = st.builds(lambda stem, ending: os.fsdecode(stem + ending), STEMS, ENDINGS)
FOLDERS = st.lists(st.sampled_from(["x", "y", "z\r", ".hidden"]), max_size=3)
CONTENTS = st.sampled_from(["image", "image", "broken", "empty", "pipe"])

FILES = st.lists(st.tuples(FOLDERS, NAMES, CONTENTS), max_size=8)
# A link at a place, to a place in the tree, beside it or above it, or to nothing.
TARGETS = st.sampled_from(["", "..", "../pool", "../pool/deep", "x", "x/y", "a.png", "../pool/0.png", "nowhere", "out"])
LINKS = st.lists(st.tuples(FOLDERS, NAMES, TARGETS), max_size=5)


def build(root, files, links, exports):
    """Make the tree; what does not fit beside what is there is left out."""
    (root / "data").mkdir()
    for number in range(2):
        save_png(root / "data" / f"always{number}.png", number)
        save_png(root / "pool" / f"{number}.png", number)
    save_png(root / "pool" / "deep" / "0.png")
    (root / "pool" / "back").symlink_to("../data")
    for folders, name, content in files:
        path = root.joinpath("data", *folders, name)
        if not free(root / "data", path):
            continue
        if content == "image":
            save_png(path)
        elif content == "pipe":
            os.mkfifo(path)
        else:
            path.write_bytes(b"no image" if content == "broken" else b"")
    for folders in exports:
        target = root.joinpath("data", *folders, "out")
        if free(root / "data", target):
            ExportFolder(target).replace(
                {"0/a.png": root / "pool" / "0.png", "1/b/c.png": root / "pool" / "1.png"},
                lambda original, path: path.write_bytes(original.read_bytes()),
            )
    for folders, name, target in links:
        path = root.joinpath("data", *folders, name)
        if free(root / "data", path):
            path.symlink_to(os.path.relpath(root / "data" / target, path.parent))


def free(root, path):
    """Whether a file can be made there; makes the folders above it."""
    above = [root / part for part in path.relative_to(root).parents]
    if os.path.lexists(path) or any(os.path.lexists(one) and (one.is_symlink() or not one.is_dir()) for one in above):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    return True


def expected(root):
    """Paths without links of all that is to be found, by plain recursion: files, and links as they stand."""
    found = []
    for entry in os.scandir(root):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if os.path.lexists(os.path.join(entry.path, MARKER)):
                found.append(entry.path)
            else:
                found += expected(entry.path)
        else:
            found.append(entry.path)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILES, LINKS, st.lists(FOLDERS, max_size=2))
def test_every_file_is_either_data_or_skipped_once(files, links, exports):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build(root, files, links, exports)
        data = load_data(root / "data", image_size=8)
        n = len(data)
        names = first_column(labels_csv(data.names, np.zeros(n, np.int64), np.ones(n)))
        names += first_column(csv_bytes(("path", "reason"), data.skipped))
        assert len(set(names)) == len(names)
        listed = {os.path.join(root, "data", name) for name in names}
        for path in expected(root / "data"):
            inside = [name for name in listed if name.startswith(path + "/")]
            # A link to a folder stands for what is found in it, or is named with a reason, or its folder is empty.
            linked_folder = os.path.islink(path) and os.path.isdir(path)
            assert (path in listed) != bool(inside) or (linked_folder and not expected_below(path)), path
        # No file of the disk is data twice, no result is data, and all data can be opened under its name.
        real = [os.path.realpath(root / "data" / name) for name in data.names]
        assert len(set(real)) == len(real)
        assert all(os.path.isfile(path) and "/out/" not in path for path in real)
        assert all(reason for _, reason in data.skipped)


def first_column(content):
    """The names in a CSV file, as a user reads them."""
    text = io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")
    return [row[0] for row in csv.reader(text)][1:]


def expected_below(path):
    """What is in a linked folder and not hidden."""
    return [entry for entry in os.listdir(path) if not entry.startswith(".")]
