"""The page's sections on the number of clusters and on near duplicates, and that metrics.json has both."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from support.clidata import single_thread

from deepclust_ext.cli import main
from deepclust_ext.report.copies import copies_part
from deepclust_ext.report.run import read_run
from deepclust_ext.runs import RunDirectory

HOSTILE = '<img src=x onerror="alert(1)">, b.jpg'


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six blobs of 40 rows, k-means with `--clusters auto`; rows 3 and 100 have near copies at the end."""
    folder = tmp_path_factory.mktemp("found")
    generator = np.random.default_rng(0)
    x = 4 * generator.normal(size=(6, 16))[np.arange(240) % 6] + generator.normal(size=(240, 16))
    x = np.concatenate([x, x[[3, 3, 100]] * 1.001]).astype(np.float32)
    names = [f"p/{number:03}.jpg" for number in range(242)] + [HOSTILE]
    np.savez(folder / "a.npz", embeddings=x, paths=np.array(names))
    words = ["--data", str(folder / "a.npz"), "--quiet"]
    assert main(["fit", "kmeans", *words, "--out", str(folder / "run"), "--clusters", "auto"]) == 0
    assert main(["duplicates", *words, "--out", str(folder / "run" / "duplicates.csv"), "--distance", "1e-4"]) == 0
    return folder / "run"


def page(run, tmp_path):
    assert main(["report", str(run), "--out", str(tmp_path / "page.html"), "--quiet"]) == 0
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def section(text, key):
    return re.search(rf'<section id="{key}".*?</section>', text, re.DOTALL)[0]


def test_the_number_stands_beside_its_neighbours(run, tmp_path):
    choice = json.loads((run / "metrics.json").read_text())["clusters_auto"]
    assert choice["n_clusters"] == 6
    found = section(page(run, tmp_path), "number")
    candidates = [str(each["n_clusters"]) for each in choice["candidates"]]
    assert re.findall(r'<th scope="row">(\d+)', found) == candidates
    assert re.findall(r'class="ours"><th scope="row">([^<]*)', found) == ["6 (taken)"]
    first = choice["candidates"][0]
    assert f"<td>{first['gap']:.2f}</td><td>{first['stability']:.2f}</td><td>{first['n_largest']}</td>" in found
    assert f"among {choice['n_rows']} rows of embeddings" in found
    assert found.count("<svg") == 2


def test_the_duplicates_stand_on_the_page_and_in_the_metrics(run, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["duplicates"] == {"distance": 1e-4, "pairs": 3, "groups": 2, "in_groups": 5, "copies": 0}
    text = page(run, tmp_path)
    found = section(text, "duplicates")
    assert "2 groups of 5 images that are the same or nearly so, 3 more than one of each" in found
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    shown = [[data["names"][int(row)] for row in rows.split(",")] for rows in re.findall('data-show="([^"]*)"', found)]
    assert shown == [["p/003.jpg", "p/240.jpg", "p/241.jpg"], ["p/100.jpg", HOSTILE]]
    assert "<img" not in found


def test_a_run_without_either_has_no_such_sections(run, tmp_path):
    words = ["--data", str(run.parent / "a.npz"), "--quiet", "--out", str(tmp_path / "run")]
    assert main(["fit", "kmeans", *words, "--clusters", "3"]) == 0
    (tmp_path / "run" / "duplicates.csv").write_text("something,else\n1,2\n")
    text = page(tmp_path / "run", tmp_path)
    assert 'id="number"' not in text
    assert 'id="duplicates"' not in text


def test_images_that_are_not_on_the_page_are_named_and_names_are_escaped(run):
    found = copies_part(read_run(RunDirectory(run, mode="read")), np.array([3]))
    assert 'data-show="0"' in found
    assert "p/240.jpg, p/241.jpg" in found
    assert "&lt;img src=x" in found
    assert "<img" not in found
