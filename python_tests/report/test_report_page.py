"""`deepclust report`: what stands on the page of a run, and that nothing on it can do harm or ask for more."""

from __future__ import annotations

import csv
import functools
import html.parser
import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image
from support.clidata import pictures, single_thread
from support.reports import CLASSES, HOSTILE, make_runs

from deepclust_ext.cli import main
from deepclust_ext.evaluate import contingency, scores


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"), ("dhog", "jule", "embeddings", "folder", "seeds"))


@pytest.fixture
def copy(runs, tmp_path):
    """`copy(kind)`: a run that the test may spoil."""

    def of(kind):
        return shutil.copytree(runs[kind], tmp_path / kind)

    return of


def page_of(run, tmp_path, *words):
    """The page's text and the data in it."""
    tmp_path.mkdir(exist_ok=True)
    out = tmp_path / "page.html"
    assert main(["report", str(run), "--out", str(out), "--quiet", *words]) == 0
    text = out.read_text(encoding="utf-8")
    return text, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


@functools.cache
def plain_page(run):
    """The same of a run as it was made, once for all tests."""
    return page_of(run, run.with_name(f"{run.name}-page"))


class Elements(html.parser.HTMLParser):
    """The elements of a page, with their attributes, and the text outside of scripts and styles."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text):
        super().__init__()
        self.found, self.text, self.open = [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data


def test_the_page_says_what_the_run_was_and_reached(runs, capsys):
    assert main(["report", str(runs["dhog"])]) == 0
    assert capsys.readouterr().out == f"page: {runs['dhog'] / 'report.html'}\n"
    text, data = plain_page(runs["dhog"])
    page = Elements(text)
    metrics = json.loads((runs["dhog"] / "metrics.json").read_text())
    config = yaml.safe_load((runs["dhog"] / "config.yaml").read_text())
    assert "DHOG on data.npz" in page.text
    for fact in (
        f"{metrics['scores']['nmi']:.3f}",
        f"{metrics['kmeans_pixels']['nmi']:.3f}",
        config["versions"]["torch"],
        config["data"]["digest"],
        "k-means on the run's embedding",
        "n_augmentations",
    ):
        assert fact in page.text
    _, y = pictures(120)
    labels = [int(row["cluster"]) for row in csv.DictReader((runs["dhog"] / "labels.csv").open())]
    assert data["cluster"] == labels
    assert data["classes"] == y.tolist()
    assert data["names"] == list(map(str, range(120)))


def test_sections_are_there_only_where_there_is_something_to_say(runs):
    text, _ = plain_page(runs["dhog"])
    assert set(re.findall(r'<section id="(\w+)"', text)) >= {
        "warnings", "scores", "clusters", "map", "confusion", "curves", "method", "settings"
    }  # fmt: skip
    text, _ = plain_page(runs["embeddings"])
    assert not {"curves"} & set(re.findall(r'<section id="(\w+)"', text))


def test_the_table_of_classes_is_the_contingency(runs):
    text, data = plain_page(runs["dhog"])
    table = re.search(r'<table class="confusion">.*?</table>', text, re.DOTALL)[0]
    lines = re.findall(r"cluster (\d+)</a></th>(.*?)</tr>", table)
    expected = contingency(data["cluster"], data["classes"])
    assert len(lines) == len(set(data["cluster"]))
    for cluster, cells in lines:
        assert [int(c or 0) for c in re.findall(r"<td[^>]*>(\d*)</td>", cells)] == expected[int(cluster)].tolist()
        assert cells.count("class=hit") == 1


def test_neighbours_are_the_nearest_by_the_runs_embedding(runs):
    _, data = plain_page(runs["dhog"])
    with np.load(runs["dhog"] / "embeddings.npz") as arrays:
        rows = arrays["embeddings"].astype(np.float64)
    distances = ((rows[:, None] - rows) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    for row in (0, 17, 119):
        found = distances[row][data["near"][row]]
        assert (np.diff(found) >= -1e-9).all()
        np.testing.assert_allclose(found, np.sort(distances[row])[:10], rtol=1e-5, atol=1e-9)


def test_samples_are_the_most_and_the_least_confident(runs):
    text, data = plain_page(runs["dhog"])
    sure = np.array([float(row["confidence"]) for row in csv.DictReader((runs["dhog"] / "labels.csv").open())])
    labels = np.array(data["cluster"])
    for number, card in re.findall(r'id="cluster-(\d+)"(.*?)</article>', text, re.DOTALL):
        members = np.flatnonzero(labels == int(number))
        shown = [list(map(int, rows.split(","))) for rows in re.findall(r'data-show="([\d,]+)"', card)]
        assert f"{len(members):,} image" in card
        if not shown:
            continue
        assert sure[shown[0][0]] == sure[members].max()
        assert (np.diff(sure[shown[0]]) <= 0).all()
        assert all(labels[row] == int(number) for part in shown for row in part)
        if len(shown) > 1:
            assert sure[shown[1][0]] == sure[members].min()
            assert (np.diff(sure[shown[1]]) >= 0).all()
            assert not set(shown[0]) & set(shown[1])


def test_no_address_leads_away_from_the_page(runs):
    for kind in ("dhog", "embeddings"):
        page = Elements(plain_page(runs[kind])[0])
        for tag, attributes in page.found:
            for name in ("src", "href", "action", "srcset", "data", "poster"):
                value = attributes.get(name)
                assert value is None or value.startswith(("data:", "#")), (tag, name, value[:80])
            assert not [name for name in attributes if name.startswith("on")]
        policy = next(a["content"] for tag, a in page.found if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'")


def test_scripts_and_styles_name_no_address(runs):
    text, _ = plain_page(runs["dhog"])
    code = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", text)
    assert "//" not in re.sub(r"^\s*//.*$", "", "".join(re.findall(r"<script>(.*?)</script>", code, re.S)), flags=re.M)
    assert not re.search(r"https?:|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", code)


def test_hostile_names_are_text(runs):
    text, data = plain_page(runs["embeddings"])
    page = Elements(text)
    assert not [tag for tag, attributes in page.found if tag == "img" and attributes.get("src") == "x"]
    assert sum(tag == "script" for tag, _ in page.found) == 2
    assert set(data["names"]) >= {name.encode("utf-8", "replace").decode() for name in HOSTILE}


def test_bytes_of_names_that_are_no_utf8_are_shown_as_question_marks(copy, tmp_path):
    run = copy("embeddings")
    content = (run / "labels.csv").read_bytes().replace(b"photos/079.jpg", b"photos/\xe9.jpg")
    (run / "labels.csv").write_bytes(content)
    assert "photos/?.jpg" in page_of(run, tmp_path)[1]["names"]


def test_names_of_classes_are_those_of_the_folders(runs):
    text, data = plain_page(runs["folder"])
    assert data["classNames"] == [f"kind{number}" for number in range(CLASSES)]
    assert data["classes"] == [int(name[4]) for name in data["names"]]
    assert "kind2" in Elements(text).text


def write_classes(path, given):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *given.items()])
    return path


def test_classes_of_a_csv_have_its_names_and_take_the_place_of_others(runs, tmp_path):
    """The scores are with these classes alone, also where the run had others."""
    kinds = ["ant", "bee", "</script>"]
    labels = {str(row): kinds[row % 3] for row in range(120)}
    text, data = page_of(runs["jule"], tmp_path, "--labels", str(write_classes(tmp_path / "later.csv", labels)))
    assert data["classNames"] == sorted(kinds)
    assert [data["classNames"][each] for each in data["classes"]] == list(labels.values())
    assert "ant" in Elements(text).text
    found = scores(data["cluster"], data["classes"])
    own = re.search(r"<tr class=ours>(.*?)</tr>", text, re.DOTALL)[1]
    assert f"<td>{found['nmi']:.3f}</td>" in re.sub(" class=best", "", own)
    # Of the run's own classes.
    metrics = json.loads((runs["jule"] / "metrics.json").read_text())
    assert "k-means on pixels" not in Elements(text).text
    assert f"{metrics['scores']['nmi']:.3f}</td>" not in text


def test_images_without_a_class_are_in_no_score(runs, tmp_path):
    labels = {str(row): ("ant", "bee")[row % 2] for row in range(0, 120, 3)}
    path = write_classes(tmp_path / "some.csv", labels | {"nobody.png": "ant"})
    text, data = page_of(runs["jule"], tmp_path, "--labels", str(path))
    classes, clusters = np.array(data["classes"]), np.array(data["cluster"])
    known = classes >= 0
    assert known.tolist() == [str(row) in labels for row in range(120)]
    words = Elements(text).text
    assert "80 of 120 images have no label" in words
    assert "1 row of" in words
    assert f"{scores(clusters[known], classes[known])['nmi']:.3f}" in words
    table = re.search(r'<table class="confusion">.*?</table>', text, re.DOTALL)[0]
    assert sum(int(count or 0) for count in re.findall(r"<td style[^>]*>(\d*)</td>", table)) == 40
    for number, card in re.findall(r'id="cluster-(\d+)"(.*?)</article>', text, re.DOTALL):
        counts = np.bincount(classes[known & (clusters == int(number))], minlength=2)
        if counts.sum():
            assert f"purity {100 * counts.max() / counts.sum():.0f}&nbsp;%" in card
        else:
            assert "purity" not in card


def test_what_evaluate_said_of_the_same_classes_is_shown(copy, tmp_path, capsys):
    run = copy("folder")
    names = [row["path"] for row in csv.DictReader((run / "labels.csv").open())]
    photos = yaml.safe_load((run / "config.yaml").read_text())["data"]["request"]["data"]
    labels = write_classes(tmp_path / "all.csv", {f"{photos}/{name}": f"kind of {name[4]}" for name in names})
    assert main(["evaluate", str(run), "--labels", str(labels), "--quiet"]) == 0
    pixels = json.loads((run / "metrics.json").read_text())["evaluation"].get("kmeans_pixels")
    text, data = page_of(run, tmp_path, "--labels", str(labels))
    assert data["classNames"][0] == "kind of 0"
    assert ("k-means on pixels" in Elements(text).text) == (pixels is not None)
    other = write_classes(tmp_path / "other.csv", {name: name[-5] for name in names})
    assert "k-means on pixels" not in Elements(page_of(run, tmp_path, "--labels", str(other))[0]).text
    assert main(["report", str(run), "--labels", str(tmp_path / "none.csv")]) == 2
    assert "--labels must be a file that can be read" in capsys.readouterr().err


def test_thumbnails_are_the_images(runs):
    """Read back from their sheet, through JPEG; from memory and from files."""
    for kind in ("dhog", "folder"):
        text, data = plain_page(runs[kind])
        (url,) = re.findall(r'<img class="sheet" alt="" src="data:image/jpeg;base64,([^"]+)"', text)
        sheet = decode(url)
        side, columns = data["sheet"]["side"], data["sheet"]["columns"]
        x, _ = pictures(120)
        for place in (0, 33, 119):
            row = (
                place
                if kind == "dhog"
                else next(n for n in range(120) if f"{n * 37 % 120:04d}" in data["names"][place])
            )
            tile = sheet[side * (place // columns) :][:side, side * (place % columns) :][:, :side]
            small = tile.reshape(8, side // 8, 8, side // 8).mean((1, 3))
            assert np.abs(small - x[row]).max() < 12


def decode(url):
    import base64
    import io

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url))).convert("L"), dtype=float)


def test_plots_are_files_beside_the_page(runs, tmp_path):
    page_of(runs["dhog"], tmp_path)
    found = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "page").glob("*.png")}
    assert found.keys() >= {
        "map-pca-clusters.png",
        "map-pca-classes.png",
        "clusters.png",
        "confusion.png",
        "curves.png",
    }
    assert all(np.ptp(pixels) > 100 for pixels in found.values())


def test_data_that_have_moved_are_a_sentence_and_no_failure(copy, runs, tmp_path):
    run = copy("folder")
    config = (run / "config.yaml").read_text().replace("/photos", "/elsewhere")
    (run / "config.yaml").write_text(config)
    text, data = page_of(run, tmp_path)
    assert "The data are no longer in" in Elements(text).text
    assert "--data" in Elements(text).text
    assert data["sheet"] is None
    assert data["classes"] is None
    # Its scores are in metrics.json all the same.
    assert f"{json.loads((run / 'metrics.json').read_text())['scores']['nmi']:.3f}" in text
    text, data = page_of(run, tmp_path, "--data", str(runs["folder"].parent / "photos"))
    assert data["sheet"] is not None
    assert "no longer" not in text


def test_other_data_in_the_same_place_are_not_shown(copy, tmp_path):
    run = copy("dhog")
    config = yaml.safe_load((run / "config.yaml").read_text())
    x, y = pictures(120, seed=1)
    np.savez(tmp_path / "other.npz", x=x, y=y)
    config["data"]["request"]["data"] = str(tmp_path / "other.npz")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text, data = page_of(run, tmp_path)
    assert "are not those of the run any more" in Elements(text).text
    assert data["sheet"] is None


def test_files_that_are_gone_are_counted(copy, runs, tmp_path):
    run = copy("folder")
    photos = shutil.copytree(runs["folder"].parent / "photos", tmp_path / "photos")
    names = [row["path"] for row in csv.DictReader((run / "labels.csv").open())]
    (photos / names[50]).unlink()
    text, data = page_of(run, tmp_path, "--data", str(photos))
    assert data["sheet"]["missing"] == [50]
    assert "1 images could not be read" in text or "1 image could not be read" in text


def test_images_of_embeddings_come_from_a_folder_where_one_is_given(copy, tmp_path, capsys):
    run = copy("embeddings")
    names = [row["path"] for row in csv.DictReader((run / "labels.csv").open(encoding="utf-8", newline=""))]
    (tmp_path / "root" / "photos").mkdir(parents=True)
    for name in names[len(HOSTILE) :]:
        Image.new("RGB", (20, 10), (200, 30, 30)).save(tmp_path / "root" / name)
    text, data = page_of(run, tmp_path, "--images", str(tmp_path / "root"))
    assert data["sheet"]["missing"] == list(range(len(HOSTILE)))
    assert '<img class="sheet"' in text
    assert main(["report", str(run), "--images", str(tmp_path)]) == 2
    assert "--images must be the folder" in capsys.readouterr().err


def test_seeds_are_told_apart_and_brought_together(runs, tmp_path, capsys):
    text, _ = plain_page(runs["seeds"])
    words = Elements(text).text
    assert "mean of 3 seeds" in words
    assert re.search(r"Seeds (dis)?agree", words)
    summary = json.loads((runs["seeds"] / "summary.json").read_text())
    assert f"{summary['mean']['nmi']:.3f} &plusmn; {summary['std']['nmi']:.3f}" in text
    # The same beside one of them, of which the rest is.
    one, _ = page_of(runs["seeds"] / "seed-1", tmp_path)
    assert "mean of 3 seeds" in one
    other, _ = page_of(runs["seeds"], tmp_path, "--seed", "1")
    assert "seed 1" in other
    assert one == other
    assert main(["report", str(runs["seeds"]), "--seed", "7"]) == 2
    assert "--seed must be one of the finished seeds 0, 1, 2" in capsys.readouterr().err


def test_a_run_that_has_not_finished_enters_no_mean(runs, tmp_path):
    seeds = shutil.copytree(runs["seeds"], tmp_path / "seeds")
    (seeds / "seed-2" / "metrics.json").unlink()
    assert "mean of 2 seeds" in page_of(seeds, tmp_path)[0]


def test_another_heads_clusters(runs, tmp_path, capsys):
    metrics = json.loads((runs["dhog"] / "metrics.json").read_text())
    for head in (0, 1):
        text, data = page_of(runs["dhog"], tmp_path, "--head", str(head))
        assert f"DHOG, head {head}" in Elements(text).text
        found = scores(data["cluster"], data["classes"])
        assert found == pytest.approx(metrics["heads"][head]["scores"])
    assert main(["report", str(runs["dhog"]), "--head", "2"]) == 2
    assert "--head must be from 0 to 1, got 2" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["NMI", "MI"])
def test_the_head_is_said_to_be_chosen_by_what_chose_it(copy, tmp_path, by):
    run = copy("dhog")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["parameters"]["selection"] = by.lower()
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert f"agree best, by {by};" in Elements(page_of(run, tmp_path)[0]).text


def test_the_same_run_makes_the_same_page(runs, tmp_path):
    assert page_of(runs["jule"], tmp_path)[0] == page_of(runs["jule"], tmp_path)[0]


def test_images_in_no_cluster_have_a_card_of_their_own(copy, tmp_path):
    """And further columns of labels.csv are not looked at."""
    run = copy("dhog")
    rows = list(csv.DictReader((run / "labels.csv").open()))
    with (run / "labels.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "cluster", "confidence", "second"])
        for number, row in enumerate(rows):
            out.writerow([row["path"], -1 if number < 30 else row["cluster"], row["confidence"], "x"])
    text, data = page_of(run, tmp_path)
    assert data["cluster"][:30] == [-1] * 30
    assert 'id="cluster--1"' in text
    assert "25.0 % of the images are in no cluster" in Elements(text).text


@pytest.mark.parametrize("name", ["embeddings.npz", "log.jsonl"])
def test_a_file_that_is_gone_takes_its_part_of_the_page_with_it(copy, tmp_path, name):
    run = copy("dhog")
    (run / name).unlink()
    text, data = page_of(run, tmp_path)
    assert (data["near"] is None) == (name == "embeddings.npz")
    assert ('<section id="curves"' in text) == (name != "log.jsonl")


def test_errors_are_sentences(copy, tmp_path, capsys):
    for words, sentence in (
        ([str(tmp_path / "none")], "holds no run"),
        ([str(copy("dhog")), "--out", str(tmp_path)], "--out must be the name of an .html file"),
        ([str(tmp_path / "dhog"), "--seed", "0"], "--seed is for folders of several seeds"),
    ):
        assert main(["report", *words]) == 2
        assert sentence in capsys.readouterr().err
    (tmp_path / "dhog" / "metrics.json").unlink()
    assert main(["report", str(tmp_path / "dhog")]) == 2
    assert "has not finished" in capsys.readouterr().err
