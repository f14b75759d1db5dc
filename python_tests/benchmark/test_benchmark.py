"""The benchmark checks agreement before it times, and times everybody."""

from __future__ import annotations

import json
import os
import types

import pytest
import torch

from deepclust_ext.benchmark import agglomerate, dhog_loss, held, jule_loss, kmeans, knn, mi_loss, runner


@pytest.fixture
def small(monkeypatch, generator):
    """Clusters far apart, on which every order of a sum comes to the same labels."""
    centres = 10 * torch.randn(5, 8, generator=generator)
    x = centres[torch.arange(300) % 5] + torch.randn(300, 8, generator=generator)
    monkeypatch.setattr(kmeans, "points", lambda kind: ("small", x))
    monkeypatch.setattr(kmeans, "CLUSTERS", {4: 1})
    monkeypatch.setattr(kmeans, "SIZES", (100, 300))
    monkeypatch.setattr(kmeans, "GROWTH_CLUSTERS", 4)
    monkeypatch.setattr(kmeans, "peers", lambda n_iter: {})
    return x


def test_kmeans_contestants_agree_and_are_timed(small):
    for contest in kmeans.cases():
        result = runner.run_contest(contest)
        assert result["disagreement"] == ""
        assert set(result["microseconds"]) == {"ours", "torch"}
        assert any("k-means++" in line for line in result["remarks"])


def test_a_wrong_k_means_is_named_and_not_timed(small, monkeypatch):
    monkeypatch.setattr(kmeans, "_torch", lambda x, start: start)
    result = runner.run_contest(kmeans.cases()[0])
    assert result["disagreement"].startswith("torch: objective")
    assert result["microseconds"] == {}


def test_a_disagreement_costs_only_its_own_case(small, monkeypatch, tmp_path):
    """Figures of hours are not thrown away for one case, and the exit code tells."""
    right = kmeans._torch
    monkeypatch.setattr(kmeans, "_torch", lambda x, start: start if len(start) == 3 else right(x, start))
    monkeypatch.setattr(kmeans, "CLUSTERS", {3: 1, 4: 1})
    assert runner.main(["kmeans"], json_path=str(tmp_path / "bench.json")) == 1
    labels = [result["label"] for result in json.loads((tmp_path / "bench.json").read_text())["results"]]
    assert labels
    assert all("K = 4" in label for label in labels)


def test_ops_measured_apart_come_to_one_file(small, tmp_path):
    path = tmp_path / "bench.json"
    assert runner.main(["kmeans"], json_path=str(path)) == 0
    found = json.loads(path.read_text())
    other = {**found["results"][0], "op": "knn", "benchmark": "knn"}
    path.write_text(json.dumps(found | {"results": [*found["results"], other]}))
    runner.main(["kmeans"], json_path=str(path))
    assert [result["benchmark"] for result in json.loads(path.read_text())["results"]] == ["kmeans"] * 3 + ["knn"]
    path.write_text(json.dumps({"machine": {"cpu": "another"}, "results": [other]}))
    runner.main(["kmeans"], json_path=str(path))
    assert [result["benchmark"] for result in json.loads(path.read_text())["results"]] == ["kmeans"] * 3


def test_plain_torch_keeps_the_centroid_of_an_empty_cluster(small):
    start = torch.cat([small[:3], torch.full((1, 8), 1e3)])
    assert torch.equal(kmeans._torch(small, start)[3], start[3])


def test_plain_torch_is_compared_under_its_own_rule_for_empty_clusters(small):
    """A cluster that ours splits and torch leaves where it is makes a percent of the objective, and is no mistake."""
    start = torch.cat([small[:3], torch.full((1, 8), 1e3)])
    results = {"ours": kmeans.ours(small, start), "torch": kmeans._torch(small, start)}
    split, kept = (kmeans.objective(small, results[name]) for name in ("ours", "torch"))
    assert kept > 1.1 * split
    assert kmeans._disagreement(small, start, results) == ""
    wrong = results | {"torch": results["ours"]}
    assert kmeans._disagreement(small, start, wrong).startswith("torch: objective")


@pytest.mark.parametrize("loss", [dhog_loss, jule_loss, mi_loss], ids=lambda module: module.__name__)
def test_opponents_stay_on_the_device_of_their_inputs(loss):
    """The meta device takes a GPU's place: it mixes with the CPU as little."""
    for case in loss.cases():
        inputs = [t.to("meta") for t in case.inputs(torch.Generator().manual_seed(0))]
        for name, form in case.opponents.items():
            if name != "compiled":
                assert form(*inputs).is_meta


@pytest.mark.parametrize("queries", [None, 40])
def test_plain_torch_finds_the_same_neighbours(generator, queries):
    x = torch.randn(200, 8, generator=generator)
    query = None if queries is None else torch.randn(queries, 8, generator=generator)
    torch.testing.assert_close(knn._torch(x, query, 5), knn._ours(x, query, 5), rtol=1e-4, atol=1e-4)


def test_merging_beside_ward(generator, monkeypatch):
    """Clusters by other criteria are no disagreement, unless they are better."""
    classes = torch.arange(300) % 5
    x = 10 * torch.randn(5, 8, generator=generator)[classes] + torch.randn(300, 8, generator=generator)
    monkeypatch.setattr(agglomerate, "images", lambda: ("small", x, classes))
    monkeypatch.setattr(agglomerate, "SIZES", (200, 400))
    monkeypatch.setattr(agglomerate, "peers", lambda: {"ward": agglomerate.ward})
    (contest,) = agglomerate.cases()
    result = runner.run_contest(contest)
    assert result["disagreement"] == ""
    assert set(result["microseconds"]) == {"ours", "ward"}
    assert "NMI: ours 1.000, ward 1.000" in result["remarks"]
    monkeypatch.setattr(agglomerate, "ours", lambda graph, x, n_clusters: classes.numpy() % 2)
    (contest,) = agglomerate.cases()
    assert runner.run_contest(contest)["disagreement"].startswith("ward: NMI 1.000, ours")


def test_a_level_is_set_for_every_library_of_the_process(monkeypatch):
    calls = []
    done = types.SimpleNamespace(returncode=3)
    monkeypatch.setattr(held.subprocess, "run", lambda command, env, check: calls.append((command, env)) or done)
    assert held.run_at("avx2", ["knn", "--json", "a.json"]) == 3
    [(command, environment)] = calls
    assert command[1:] == ["-m", "deepclust_ext", "bench", "knn", "--json", "a.json"]
    assert environment["DEEPCLUST_SIMD"] == "avx2"
    assert environment["PATH"] == os.environ["PATH"]
    assert held.SWITCHES["base"].keys() == held.SWITCHES["avx2"].keys()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert "ATEN_CPU_CAPABILITY=avx2" in runner.machine()["held"]
