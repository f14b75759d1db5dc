"""`--seeds` of every method, what an interruption leaves, and `deepclust compare`."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from support.clidata import pictures, rows
from support.tinyruns import TINY, tiny

from deepclust_ext.cli import main
from deepclust_ext.commands import _seeds
from deepclust_ext.commands import fit as fit_command
from deepclust_ext.commands._arguments import RECIPES
from deepclust_ext.commands._finished import agreement, differences
from deepclust_ext.evaluate import nmi
from deepclust_ext.runs import Interrupted


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    x, y = pictures(80)
    np.savez(path, x=x, y=y)
    return path


def labels(folder):
    return np.array([int(row["cluster"]) for row in rows(folder / "labels.csv")])


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_every_method_is_tried():
    assert TINY.keys() == RECIPES.keys()


@pytest.mark.parametrize("method", TINY)
def test_seeds_of_every_method_agree_as_their_labels_do(method, data, tmp_path, capfd):
    out = tmp_path / "runs"
    assert main(tiny(method, data, out, "--seeds", "0,3,5")) == 0, capfd.readouterr().err
    found = summary(out)
    assert [row["seed"] for row in found["seeds"]] == [0, 3, 5]
    assert found["missing"] == []
    each = {seed: labels(out / f"seed-{seed}") for seed in (0, 3, 5)}
    pairs = {tuple(pair["seeds"]): pair["nmi"] for pair in found["agreement"]["pairs"]}
    assert pairs.keys() == {(0, 3), (0, 5), (3, 5)}
    for (a, b), value in pairs.items():
        assert value == pytest.approx(nmi(each[a], each[b]), abs=1e-9)
    assert found["agreement"]["mean"] == pytest.approx(np.mean(list(pairs.values())))
    assert found["agreement"]["lowest"]["nmi"] == min(pairs.values())
    assert found["seeds"][1]["agreement"] == pytest.approx((pairs[0, 3] + pairs[3, 5]) / 2)
    table = rows(out / "summary.csv")
    assert float(table[3]["agreement"]) == pytest.approx(found["agreement"]["mean"], abs=1e-6)
    assert re.search(
        r"seeds (dis)?agree: NMI of their labels \d\.\d{4} on average over 3 pairs", capfd.readouterr().out
    )


def test_a_seed_that_is_interrupted_is_in_no_average_until_it_is_resumed(data, tmp_path, monkeypatch, capfd):
    out, fitted = tmp_path / "runs", []
    whole = fit_command.fit_one

    def stopped(request, images, folder, seed):
        fitted.append(seed)
        if seed == 2 and fitted.count(2) == 1:
            (folder).mkdir(parents=True)
            raise Interrupted(15)
        return whole(request, images, folder, seed)

    monkeypatch.setattr(fit_command, "fit_one", stopped)
    words = tiny("kmeans", data, out, "--seeds", "0-3", "--resume", "auto")
    assert main(words) == 143
    assert "run the same command with --resume auto" in capfd.readouterr().err
    found = summary(out)
    assert [row["seed"] for row in found["seeds"]] == [0, 1]
    assert found["missing"] == [2, 3]
    assert [tuple(pair["seeds"]) for pair in found["agreement"]["pairs"]] == [(0, 1)]
    before = (out / "seed-0" / "labels.csv").stat().st_mtime_ns
    assert main(words) == 0
    assert [row["seed"] for row in summary(out)["seeds"]] == [0, 1, 2, 3]
    assert (out / "seed-0" / "labels.csv").stat().st_mtime_ns == before


def test_pairs_of_very_many_seeds_are_not_all_compared(data, tmp_path, monkeypatch):
    monkeypatch.setattr(_seeds, "COMPARED", 2)
    assert main(tiny("affinity", data, tmp_path / "runs", "--seeds", "0-2", "--quiet")) == 0
    found = summary(tmp_path / "runs")
    assert [tuple(pair["seeds"]) for pair in found["agreement"]["pairs"]] == [(0, 1)]
    # Merging does not depend on the seed.
    assert found["agreement"]["mean"] == 1.0
    assert found["seeds"][2]["agreement"] is None


def test_agreement_is_nmi_of_any_integers():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 200), rng.integers(0, 3, 200)
    assert agreement(a, b) == pytest.approx(nmi(a, b), abs=1e-12)
    assert agreement(a * 1000 - 7, b - 1) == pytest.approx(nmi(a, b), abs=1e-12)
    assert agreement(a, np.zeros(200, dtype=np.int64)) == 0.0


# compare


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A sweep with an unfinished seed, a single run, and one on other data."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(tiny("dhog", data, folder / "a" / "dhog", "--seeds", "0-1", "--quiet")) == 0
    assert main(tiny("kmeans", data, folder / "a" / "<b>&", "--quiet")) == 0
    x, y = pictures(60, seed=9)
    np.savez(folder / "other.npz", x=x, y=y)
    assert main(tiny("kmeans", folder / "other.npz", folder / "other", "--quiet")) == 0
    return folder


def unfinished(sweep, name):
    """A seed that was killed in mid-run: everything but results."""
    member = sweep / name
    member.mkdir()
    (member / "config.yaml").write_text((sweep / "seed-0" / "config.yaml").read_text())
    (member / "labels.csv").write_text("path,cluster,confidence\n")
    return member


def test_a_table_of_runs_and_sweeps(runs, tmp_path, capfd):
    sweep, single = runs / "a" / "dhog", runs / "a" / "<b>&"
    unfinished(sweep, "seed-10")
    try:
        assert main(["compare", str(sweep), str(single), "--out", str(tmp_path / "out")]) == 0
        out, err = capfd.readouterr()
        assert "dhog: seed-10 not finished, and in no figure" in err
    finally:
        for path in (sweep / "seed-10").iterdir():
            path.unlink()
        (sweep / "seed-10").rmdir()
    reached = [json.loads((sweep / f"seed-{s}" / "metrics.json").read_text())["scores"]["nmi"] for s in (0, 1)]
    line = next(line for line in out.splitlines() if line.startswith("dhog"))
    assert f"{np.mean(reached):.4f} +- {np.std(reached, ddof=1):.4f}" in line
    assert line.split()[1:3] == ["DHOG", "2"]
    assert any(line.startswith("k-means on pixels") for line in out.splitlines())
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["rows"][0]["figures"]["nmi"]["values"] == reached
    of_sweep, of_single = [labels(sweep / f"seed-{s}") for s in (0, 1)], labels(single)
    between = np.mean([nmi(each, of_single) for each in of_sweep])
    assert found["agreement"][0][1] == found["agreement"][1][0] == pytest.approx(between, abs=1e-9)
    assert found["agreement"][0][0] == pytest.approx(nmi(*of_sweep), abs=1e-9)
    assert found["agreement"][1][1] is None
    assert "method" in found["settings"]
    assert "n_clusters" not in found["settings"]
    table = rows(tmp_path / "out" / "compare.csv")
    assert [row["run"] for row in table] == ["dhog", "<b>&"]
    assert float(table[0]["nmi"]) == pytest.approx(np.mean(reached), abs=1e-6)
    assert table[1]["nmi_std"] == ""


class Page(HTMLParser):
    """Collects what a page asks of others, its text, and whether its tags are closed."""

    def __init__(self):
        super().__init__()
        self.outside, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.outside += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "circle", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("circle", "line"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_stands_alone(runs, tmp_path):
    words = [str(runs / "a" / "dhog"), str(runs / "a" / "<b>&"), str(runs / "other")]
    assert main(["compare", *words, "--out", str(tmp_path), "--quiet"]) == 0
    text = (tmp_path / "compare.html").read_text()
    page = Page()
    page.feed(text)
    assert page.outside == []
    assert page.open == []
    assert "url(" not in text
    assert "<b>&" in page.text
    assert "prefers-color-scheme: dark" in text
    # Two seeds of DHOG, two single runs: a dot each in every picture.
    assert text.count("<circle") % 4 == 0


def test_runs_of_different_data_are_told_apart(runs, capfd):
    assert main(["compare", str(runs / "a" / "<b>&"), str(runs / "other")]) == 0
    out, err = capfd.readouterr()
    assert "of different data" in err
    assert "NMI between" not in out


def test_what_cannot_be_compared_is_refused(runs, tmp_path, data, capfd):
    def refused(*words):
        assert main(["compare", *map(str, words)]) == 2
        return capfd.readouterr().err

    (tmp_path / "empty").mkdir()
    assert "holds no run, nor runs in seed-*" in refused(tmp_path / "empty")
    assert "must name every folder once" in refused(runs / "other", runs / "a" / ".." / "other")
    assert "RUN" in refused()
    mixed = tmp_path / "mixed"
    assert main(tiny("kmeans", data, mixed, "--seeds", "0", "--quiet")) == 0
    assert main(tiny("kmeans", data, mixed, "--seeds", "1", "--quiet", "--max-iter", "7")) == 0
    capfd.readouterr()
    assert "are no repetitions: max_iter of seed-0 and seed-1 differ" in refused(mixed)
    (mixed / "seed-1" / "metrics.json").unlink()
    (mixed / "seed-0" / "metrics.json").unlink()
    assert "no seed in" in refused(mixed)
    assert "has not finished; resume it first" in refused(mixed / "seed-0")
    (tmp_path / "file").write_text("")
    assert "--out must be a folder" in refused(runs / "other", "--out", tmp_path / "file")


def test_differences_are_named_once():
    assert differences([{"a": 1}, {"a": 1}]) == []
    assert differences([{"a": 1, "b": 2}, {"a": 1}, {"a": 3}]) == ["a", "b"]
