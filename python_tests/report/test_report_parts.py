"""The parts of the page alone: what is shown of many images, what is found wrong, curves, thumbnails, the tree."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from deepclust_ext import cut
from deepclust_ext.ops.affinity_graph import affinity_graph
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.report import choose as choosing
from deepclust_ext.report import tree as trees
from deepclust_ext.report.chart import Chart, Series, frame_of, svg, ticks
from deepclust_ext.report.choose import Shown, choose
from deepclust_ext.report.clusters import in_short
from deepclust_ext.report.colours import class_colours, palette
from deepclust_ext.report.curves import charts, method_charts
from deepclust_ext.report.findings import findings
from deepclust_ext.report.html import clean, embed_json, fill
from deepclust_ext.report.known import ArrayPictures, Known
from deepclust_ext.report.near import cluster_facts, neighbours, verdict
from deepclust_ext.report.places import Places, place
from deepclust_ext.report.run import Run, Seeds
from deepclust_ext.report.scores import ScoreRow, score_table
from deepclust_ext.report.sections import map_frame
from deepclust_ext.report.sheets import COLUMNS, PER_SHEET, QUALITIES, make_sheets, tile


def run_of(n=200, k=4, *, embeddings=None, metrics=None, log=(), method="DHOG", parameters=None, labels=None):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % k if labels is None else np.asarray(labels)
    return Run(
        Path("run"),
        {"method": method, "seed": 3, "parameters": parameters or {}},
        {"n_clusters": k, "selected_head": 0, "collapsed": None, **(metrics or {})},
        list(log),
        tuple(map(str, range(n))),
        labels.astype(np.int64),
        rng.random(n).astype(np.float32),
        embeddings,
    )


def blobs(n=200, k=4, d=6, spread=0.3):
    rng = np.random.default_rng(1)
    return (5 * rng.normal(size=(k, d))[np.arange(n) % k] + spread * rng.normal(size=(n, d))).astype(np.float32)


# What is shown


def test_of_few_images_all_are_shown():
    shown = choose(run_of())
    assert shown.complete
    assert shown.rows.tolist() == list(range(200))


def test_of_many_images_the_samples_and_a_random_part(monkeypatch):
    monkeypatch.setattr(choosing, "MAX_SHOWN", 100)
    run = run_of(5000, 3)
    shown = choose(run)
    assert len(shown.rows) == 120  # twenty at both ends of each cluster
    monkeypatch.setattr(choosing, "MAX_SHOWN", 1000)
    shown = choose(run)
    assert len(shown.rows) == 1000
    assert (np.diff(shown.rows) > 0).all()
    assert choose(run).rows.tolist() == shown.rows.tolist()
    for each in shown.samples:
        members = np.flatnonzero(run.labels == each.cluster)
        most = shown.rows[each.most]
        assert run.confidence[most[0]] == run.confidence[members].max()
        assert run.confidence[shown.rows[each.least[0]]] == run.confidence[members].min()


def test_of_many_clusters_the_largest_are_listed():
    labels = np.repeat(np.arange(300), np.arange(1, 301))
    shown = choose(run_of(len(labels), 300, labels=labels))
    assert [each.cluster for each in shown.samples] == list(range(180, 300))


def test_clusters_of_one_image_and_none():
    shown = choose(run_of(3, 4, labels=[0, 0, 2]))
    assert [(each.cluster, len(each.most), len(each.least)) for each in shown.samples] == [
        (0, 2, 0), (1, 0, 0), (2, 1, 0), (3, 0, 0)
    ]  # fmt: skip


# Neighbours and words


def test_the_five_worst_are_those_whose_neighbours_disagree():
    rows = blobs()
    run = run_of(embeddings=rows)
    classes = np.arange(200) % 4
    assert len(neighbours(run, rows, np.arange(200), classes).worst) == 0
    moved = classes.copy()
    moved[[7, 80]] = (moved[[7, 80]] + 1) % 4
    near = neighbours(run, rows, np.arange(200), moved)
    assert set(near.worst[:2].tolist()) == {7, 80}
    assert near.by_class
    # Of the two, first the one that the run is more sure of.
    assert run.confidence[near.worst[0]] > run.confidence[near.worst[1]]


def test_words_on_clusters():
    rows = blobs()
    run = run_of(embeddings=rows)
    classes = np.arange(200) % 4
    near = neighbours(run, rows, np.arange(200), classes)
    facts = cluster_facts(run, [0, 1, 2, 3], np.arange(200), near, classes, np.arange(4))
    assert [verdict(each, ("a", "b", "c", "d"), 200, 4)[0] for each in facts] == ["good"] * 4
    assert [each.matched for each in facts] == [0, 1, 2, 3]
    assert all(each.purity == 1 and each.stays == 1 for each in facts)
    mixed = dataclasses.replace(facts[0], purity=0.5, classes=((0, 0.5), (1, 0.5)), stays=0.5, nearest=3, leak=0.4)
    word, sentence = verdict(mixed, ("a", "b", "c", "d"), 200, 4)
    assert word == "mixed"
    assert sentence.startswith("Several classes: class a (50 %), with class b (50 %).")
    assert "40 % are in cluster 3" in sentence
    assert verdict(dataclasses.replace(facts[0], size=1), ("a", "b", "c", "d"), 200, 4)[0] == "small"
    assert verdict(dataclasses.replace(facts[0], size=0), ("a", "b", "c", "d"), 200, 4)[0] == "empty"


def test_in_short_which_clusters_are_clear_and_which_to_look_at():
    rows = blobs()
    run = run_of(embeddings=rows)
    classes = np.arange(200) % 4
    known = Known(classes=classes, class_names=("a", "b", "<c>", "d"))
    near = neighbours(run, rows, np.arange(200), classes)
    facts = cluster_facts(run, [0, 1, 2, 3], np.arange(200), near, classes, np.arange(4))
    facts[2] = dataclasses.replace(facts[2], stays=0.9)
    shown = choose(run)

    def said(facts, known=known):
        text = in_short(facts, shown, known, run)
        assert "<c>" not in text
        title = re.search("<h3>(.*?)</h3>", text)
        listed = [(int(n), word) for n, word in re.findall(r'href="#cluster-(\d+)">.*?">(\w+)</span>', text)]
        return title and title[1], listed, text

    title, listed, text = said(facts)
    assert (title, listed) == ("All 4 clusters are clear", [(2, "clear"), (0, "clear"), (1, "clear")])
    assert "of its images are of one class" in text
    facts[0] = dataclasses.replace(facts[0], stays=0.7)
    facts[1] = dataclasses.replace(facts[1], purity=0.5)
    facts[3] = dataclasses.replace(facts[3], size=1)
    assert said(facts)[:2] == ("1 of 4 clusters is clear", [(1, "mixed"), (3, "small"), (0, "fair")])
    facts = [dataclasses.replace(each, cluster=number, purity=0.5) for number, each in enumerate(facts * 2)]
    title, listed, text = said(facts)
    assert title == "None of 8 clusters are clear"
    assert len(listed) == 6
    assert "and 2 more, below" in text
    # Without classes by neighbours alone, and nothing where these are unknown, too.
    plain = cluster_facts(run, [0], np.arange(200), near, None, None)
    assert "one class" not in said(plain, Known())[2]
    assert said(cluster_facts(run, [0], np.arange(200), None, None, None), Known()) == (None, [], "")


def test_the_map_that_keeps_neighbourhoods_is_shown_first():
    def chosen(*names):
        places = [Places(name, np.arange(3), np.zeros((3, 2), dtype=np.int64)) for name in names]
        return re.findall('value="(.)" selected', map_frame(places, Known(), Shown(np.arange(3), (), 3)))

    assert chosen("PCA", "t-SNE", "UMAP") == ["1"]
    assert chosen("PCA") == ["0"]


# What is found


def titles(run, rows=None, seeds=None, known=None):
    rows = [ScoreRow(run.method, run.scores, ours=True)] if rows is None else rows
    return [(each.level, each.title) for each in findings(run, known or Known(), rows, seeds)]


def test_nothing_wrong_is_said_to_be_so():
    run = run_of(embeddings=blobs())
    assert titles(run) == [("good", "No warning")]


def test_a_collapse_is_a_warning():
    run = run_of(labels=np.zeros(200), metrics={"collapsed": "uses 1 of 4 clusters"}, embeddings=blobs())
    assert titles(run)[0] == ("bad", "The run has collapsed")


def test_empty_and_large_clusters_deserve_a_look():
    run = run_of(labels=[0] * 150 + [1] * 50, embeddings=blobs(), k=3)
    assert ("look", "1 of 3 clusters are empty") in titles(run)
    run = run_of(labels=np.r_[np.zeros(150), 1 + np.arange(50) % 9], embeddings=blobs(), k=10)
    assert ("look", "One cluster holds 75 % of the images") in titles(run)


@pytest.mark.parametrize(("pixels", "found"), [(0.6, True), (0.4, False)])
def test_below_kmeans_on_pixels(pixels, found):
    run = run_of(embeddings=blobs())
    rows = [ScoreRow("DHOG", {"nmi": 0.5}), ScoreRow("k-means on pixels", {"nmi": pixels, "run_nmi": 0.5})]
    assert (("bad", "Below k-means on pixels") in titles(run, rows)) == found


def test_an_embedding_that_knows_more():
    run = run_of(embeddings=blobs())
    rows = [ScoreRow("DHOG", {"nmi": 0.5}), ScoreRow("k-means on the run's embedding", {"nmi": 0.7})]
    assert ("look", "The embedding knows more than the labels") in titles(run, rows)


def test_seeds_that_disagree():
    metrics = {seed: {"scores": {"nmi": value}} for seed, value in enumerate((0.5, 0.9, 0.7))}
    run = run_of(embeddings=blobs())
    assert ("bad", "Seeds disagree") in titles(run, seeds=Seeds(metrics, (0.3, 0.4, 0.5)))
    assert ("look", "Seeds disagree") in titles(run, seeds=Seeds(metrics, (0.9, 0.9, 0.9)))
    same = {seed: {"scores": {"nmi": 0.9}} for seed in range(3)}
    assert ("good", "Seeds agree") in titles(run, seeds=Seeds(same, (0.9, 0.9, 0.9)))


def test_labels_that_still_move_and_heads_that_collapsed():
    log = [
        {"event": "epoch", "epoch": 1, "churn": 0.02},
        {"event": "epoch", "epoch": 2, "churn": 0.3},
        {"event": "warning", "kind": "collapse", "head": 1, "epoch": 2},
    ]
    run = run_of(embeddings=blobs(), log=log, metrics={"heads": [{"head": 0}, {"head": 1}]})
    found = titles(run)
    assert ("look", "The labels were still moving") in found
    assert ("look", "1 of 2 heads collapsed at some time") in found


# Tables and curves


def test_the_table_marks_the_best_and_shows_spreads():
    rows = [ScoreRow("a", {"nmi": 0.5, "seconds": 1.0}, ours=True), ScoreRow("b", {"nmi": 0.75}, {"nmi": 0.125})]
    table = score_table(rows)
    assert "<td class=best>0.750 &plusmn; 0.125</td>" in table
    assert "<td>0.500</td><td>1.0</td>" in table
    assert "ACC" not in table


def test_curves_come_from_the_log():
    epochs = [
        {
            "event": "epoch",
            "epoch": number,
            "loss": -0.1 * number,
            "nmi_views": [0.1 * number, 0.2 * number],
            "occupancy_entropy": [0.9, 0.8],
            "largest_share": [0.2, 0.3],
            "clusters_used": [4, 3],
            "scores": [{"nmi": 0.3}, {"nmi": 0.4}],
            "pull": [0.5, 0.6],
            "lr": 0.1,
        }
        for number in (1, 2, 3)
    ]
    run = run_of(log=epochs, metrics={"selected_head": 1})
    found = {chart.title: chart for chart in charts(run)}
    assert found.keys() == {"Loss", "Agreement (NMI)", "Occupancy", "Clusters in use", "Learning rate"}
    own = {series.name: series for series in found["Agreement (NMI)"].series if not series.faint}
    np.testing.assert_allclose(own["two views"].points, [(1, 0.2), (2, 0.4), (3, 0.6)])
    assert own["classes"].points == [(1, 0.4), (2, 0.4), (3, 0.4)]
    assert [chart.title for chart in method_charts(run)] == ["Pull"]
    assert charts(run_of()) == []


def test_a_chart_stays_in_its_frame():
    values = [(1, 0.0), (2, float("nan")), (3, 1e-3), (4, float("inf"))]
    chart = Chart("<b>", "", (Series("a & b", values),))
    frame = frame_of(chart)
    for x, y in ((1, 0.0), (3, 1e-3)):
        across, down = frame.at(x, y)
        assert 0 <= across <= 360
        assert 0 <= down <= 200
    drawn = svg(chart)
    assert "&lt;b&gt;" in drawn
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert svg(Chart("none", "", (Series("a", [(1, float("nan"))]),))) == ""
    assert svg(Chart("one", "", (Series("a", [(1, 2.0)]),))).count("<circle") == 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-2.3, -0.1), (1e-8, 3e-8), (0, 12345), (-5, 5)])
def test_ticks_are_few_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 11
    assert low - 1e-9 <= found[0] <= found[-1] <= high + 1e-9


# Thumbnails, maps, the tree


def test_an_image_keeps_its_shape_in_its_tile():
    found = tile(np.full((10, 30), 255, dtype=np.uint8), 30)
    assert found.shape == (30, 30)
    assert (found[10:20] == 255).all()
    assert (found[:10] == 128).all()
    assert tile(np.zeros((300, 100, 3), dtype=np.uint8), 48).shape == (48, 48, 3)


def test_sheets_stay_small_and_hold_every_image():
    noise = torch.randint(
        0, 256, (PER_SHEET + 3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    found = make_sheets(ArrayPictures(noise), range(len(noise)))
    assert len(found.files) == 2
    assert sum(map(len, found.files)) <= QUALITIES[-1][1]
    assert found.side == 48


def test_a_picture_that_is_gone_leaves_a_grey_tile():
    class Some:
        side = 40

        def read(self, rows, side):
            return [None if row == 1 else np.zeros((40, 40), np.uint8) for row in rows]

    assert make_sheets(Some(), [0, 1, 2]).missing == {1}
    assert COLUMNS * COLUMNS == PER_SHEET


def test_maps_keep_what_is_apart_apart():
    rows = blobs(120)
    maps = place(rows, np.arange(120), seed=0)
    assert [each.name for each in maps][:2] == ["PCA", "t-SNE"]
    for each in maps:
        assert each.points.min() >= 0
        assert each.points.max() <= 9999
        points = each.points.astype(float)
        own = points - np.stack([points[np.arange(120) % 4 == k].mean(0) for k in range(4)])[np.arange(120) % 4]
        assert own.std() < 0.4 * (points - points.mean(0)).std()


@pytest.mark.parametrize(
    "rows", [np.zeros((30, 3)), np.arange(30.0)[:, None], np.eye(2, 5)], ids=["same", "1-d", "two"]
)
def test_maps_of_odd_embeddings(rows):
    maps = place(rows.astype(np.float32), np.arange(len(rows)), seed=0)
    assert maps[0].points.shape == (len(rows), 2)


PARAMETERS = {"n_neighbors": 10, "a": 1.0, "kc": 5, "lam": 1.0, "update": "exact"}


def test_the_tree_is_the_methods_own(monkeypatch):
    rows = blobs(150, spread=1.0)
    run = run_of(150, embeddings=rows, method="JULE", parameters=PARAMETERS)
    found = trees.merge_tree(run, np.arange(150))
    x = torch.from_numpy(rows)
    expected = agglomerate(affinity_graph(x, 10), 1, x=x)
    assert found.children == expected.children.tolist()
    assert found.leaves.tolist() == expected.initial_labels.tolist()
    assert sum(found.sizes) == 150
    # A cut by the numbers of the page is `cut`.
    parent = list(range(len(found.sizes)))
    for number, (a, b) in enumerate(found.children[: len(found.sizes) - 4]):
        parent = [len(found.sizes) + number if node in (a, b) else node for node in parent]
    groups = np.unique([parent[leaf] for leaf in found.leaves], return_inverse=True)[1]
    labels = cut(expected, 4).labels.numpy()
    assert len(set(zip(groups.tolist(), labels.tolist(), strict=True))) == 4
    monkeypatch.setattr(trees, "MAX_MERGED", 100)
    part = trees.merge_tree(run, np.arange(0, 150, 3))
    assert part.n_images == sum(part.sizes) == len(part.leaves) == 50
    assert trees.merge_tree(run_of(embeddings=rows, method="DHOG"), np.arange(150)) is None


# HTML


def test_what_is_put_into_a_template_is_not_looked_through():
    assert fill("{{a}}{{b}}", {"a": "{{b}}", "b": "x"}) == "{{b}}x"


def test_json_cannot_end_its_element():
    found = embed_json({"a": "</script><!--\u2028&\udce9"})
    assert not set("<>&\u2028\udce9") & set(found)
    assert clean("a\udce9") == "a?"


def test_colours():
    found = palette(300)
    assert len(set(found)) > 290
    assert class_colours(4, np.array([2, -1, 0, 1]), found) == [found[2], found[3], found[0], "#8a8a8a"]
