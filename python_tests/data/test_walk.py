"""The walk over a folder: every file once, links followed, results left out, nothing unnamed."""

from __future__ import annotations

import os

import pytest
from support.trees import save_png

from deepclust_ext.data import load_data
from deepclust_ext.data.walk import OURS, list_files
from deepclust_ext.runs.marker import MARKER, mark


def test_links_to_folders_are_followed_and_name_the_class(tmp_path):
    for number in range(3):
        save_png(tmp_path / "pool" / f"{number}.png", number)
        save_png(tmp_path / "data" / "own" / f"{number}.png", number + 3)
    (tmp_path / "data" / "cat").symlink_to("../pool")
    data = load_data(tmp_path / "data", folder_labels=True)
    assert data.names == ("cat/0.png", "cat/1.png", "cat/2.png", "own/0.png", "own/1.png", "own/2.png")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.skipped == ()


def test_circles_end_and_are_named(tmp_path):
    save_png(tmp_path / "up" / "data" / "a" / "0.png")
    for link, target in {"loop": ".", "a/back": "../..", "a/up": "../../..", "self": "self"}.items():
        (tmp_path / "up" / "data" / link).symlink_to(target)
    files, others = list_files(tmp_path / "up" / "data")
    assert files == ["a/0.png"]
    circle = "a link to a folder that holds it"
    assert sorted(others) == [("a/back", circle), ("a/up", circle), ("loop", circle), ("self", "a link to nothing")]


def test_two_links_to_each_other_end(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        save_png(tmp_path / "pools" / name / f"{name}.png")
        (tmp_path / "pools" / name / "next").symlink_to(f"../{other}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in").symlink_to("../pools/a")
    files, others = list_files(tmp_path / "data")
    assert files == ["in/a.png", "in/next/b.png"]
    assert others == [("in/next/next", "a folder that is read already, as 'in'")]


def test_nothing_is_read_twice_and_the_path_without_links_wins(tmp_path):
    save_png(tmp_path / "z" / "0.png")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "a.png").symlink_to("z/0.png")
    files, others = list_files(tmp_path)
    assert files == ["z/0.png"]
    assert dict(others) == {
        "a": "a folder that is read already, as 'z'",
        "a.png": "a link to a file that is read already, as 'z/0.png'",
    }


def test_a_folder_within_one_that_was_linked_before_is_read_once(tmp_path):
    save_png(tmp_path / "pool" / "inner" / "0.png")
    save_png(tmp_path / "pool" / "1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to("../pool/inner")
    (tmp_path / "data" / "b").symlink_to("../pool")
    files, others = list_files(tmp_path / "data")
    assert files == ["a/0.png", "b/1.png"]
    assert others == [("b/inner", "a folder that is read already, as 'a'")]


def test_results_are_left_out_also_through_links_unless_they_are_asked_for(tmp_path):
    save_png(tmp_path / "data" / "0.png")
    for folder in (tmp_path / "data" / "run" / "clusters", tmp_path / "elsewhere"):
        save_png(folder / "3" / "0.png")
        mark(folder)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere" / "3")
    files, others = list_files(tmp_path / "data")
    assert files == ["0.png"]
    assert sorted(others) == [("link", OURS), ("run/clusters", OURS)]
    # One who names such a folder wants it.
    assert list_files(tmp_path / "elsewhere")[0] == ["3/0.png"]
    assert list_files(tmp_path / "elsewhere" / "3")[0] == ["0.png"]
    assert (tmp_path / "elsewhere" / MARKER).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    save_png(tmp_path / "a" / "0.png")
    (tmp_path / "a").chmod(0)
    assert list_files(tmp_path) == ([], [("a", "folder cannot be read: Permission denied")])
    (tmp_path / "a").chmod(0o700)
