"""The tables of speed: the best peer of a case, one name for each peer, and pages that can be written again."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(op, label, **microseconds):
    """A case as the runner sums it up; spaces in a peer's name are underscores here."""
    times = {name.replace("_", " "): value for name, value in microseconds.items()}
    return {
        "op": op,
        "label": label,
        "gradient": True,
        "disagreement": "",
        "microseconds": times,
        "fastest": times,
        "ratios": {name: value / times["ours"] for name, value in times.items() if name != "ours"},
        "targets": dict.fromkeys(times, 77.5),
    }


@pytest.fixture
def data():
    machine = {"cpu": "Some CPU", "simd": "AVX2", "threads": 2, "torch": "2.14.1", "deepclust_ext": "0"}
    mi_loss = [result("mi_loss", f"{n} x 10", ours=100, compiled=100 * n, product_form=200 * n) for n in (5, 2, 4, 3)]
    kmeans = result(
        "kmeans", "K = 10", ours=1e6, torch=4e6, faiss=3e6, **{"scikit-learn-intelex": 2.5e6, "scikit-learn": 2.6e6}
    )
    knn = result("knn", "k = 20", ours=2e6, torch=9e6, faiss=7e6, **{"scikit-learn-intelex": 8e6, "scikit-learn": 1e7})
    alone = result("knn", "nobody else", ours=1e6)
    return {"machine": machine, "results": [*mi_loss, kmeans, knn, alone]}


@pytest.fixture
def written(report, data, tmp_path):
    """The README and the long page, written twice over."""
    source, readme, page = tmp_path / "bench.json", tmp_path / "README.md", tmp_path / "speed.md"
    source.write_text(json.dumps(data))
    readme.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\n## After\n")
    texts = []
    for _ in range(2):
        report.main([str(source), str(readme), str(page)])
        texts.append((readme.read_text(), page.read_text()))
    assert texts[0] == texts[1]
    return texts[0]


def rows(text):
    """The cells of a Markdown table's rows, without its header."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]


def test_the_short_table_has_the_best_peer_of_each_case(written):
    readme, _ = written
    assert rows(readme)[-2:] == [
        ["`kmeans`", "K = 10", "1 s", "scikit-learn-intelex", "2.5 s", "2.5x"],
        ["`knn`", "k = 20", "2 s", "faiss", "7 s", "3.5x"],
    ]


def test_the_short_table_goes_between_the_markers(written):
    readme, _ = written
    assert readme.startswith("# Title\n")
    assert readme.endswith("\n## After\n")
    assert "old" not in readme
    assert "2 threads of Some CPU (AVX2), torch 2.14.1" in readme


def test_the_long_table_has_every_peer(written, data):
    _, page = written
    found = rows(page)
    assert len(found) == sum(len(case["ratios"]) for case in data["results"])
    assert ["`mi_loss`", "5 x 10", "0.1 ms", "plain torch, product form", "1 ms", "10.0x"] in found
    assert page.startswith("# Speed\n")


def test_a_peer_has_one_name_and_targets_stay_out(written):
    for text in written:
        assert not re.search(r"\| (torch|intelex) \|", text)
        assert "77.5" not in text
        assert "target" not in text


def test_the_short_table_shows_lowest_and_highest_ratios(report, data, monkeypatch):
    monkeypatch.setattr(report, "ROWS", 9)  # three for each of three ops
    labels = [row[1] for row in rows(report.short_table(data))]
    assert labels == ["5 x 10", "2 x 10", "3 x 10", "K = 10", "k = 20"]  # in the order they were run
    monkeypatch.setattr(report, "ROWS", 1)
    assert [row[1] for row in rows(report.short_table(data))] == ["3 x 10", "K = 10", "k = 20"]


def test_the_peers_of_the_benchmarks_are_those_of_the_tables(report):
    """A new contestant of plain torch must be given its name; the libraries' names stand for themselves."""
    from deepclust_ext.benchmark import dhog_loss, jule_loss, mi_loss

    forms = {name for module in (mi_loss, dhog_loss, jule_loss) for case in module.cases() for name in case.opponents}
    assert forms <= set(report.PEERS)


def test_without_files_both_tables_are_printed(report, data, tmp_path, capsys):
    source = tmp_path / "bench.json"
    source.write_text(json.dumps(data))
    report.main([str(source)])
    assert capsys.readouterr().out == f"{report.short_table(data)}\n\n{report.long_table(data)}\n"


def test_two_levels_stand_side_by_side(report, data, tmp_path):
    held = json.loads(json.dumps(data))
    held["machine"] |= {"simd": "avx2", "held": ["DEEPCLUST_SIMD=avx2"]}
    held["results"] = [r for r in held["results"] if r["op"] != "knn"]
    data["machine"] |= {"simd": "avx512", "amx": True, "held": []}
    table = report.short_table(data, held)
    assert "| Op | Size | avx512 + AMX | best peer | its time | ratio | avx2 | best peer | its time | ratio |" in table
    kmeans, knn = rows(table)[-2:]
    assert kmeans[2:6] == kmeans[6:]
    assert knn[2:] == ["2 s", "faiss", "7 s", "3.5x", "", "", "", ""]
    assert "(avx2, held by DEEPCLUST_SIMD=avx2)" in table
    readme, page = tmp_path / "README.md", tmp_path / "speed.md"
    readme.write_text(f"{report.BEGIN}{report.END}")
    report.write([data, held], readme, page)
    assert re.findall("^## (.*)", page.read_text(), re.M) == ["avx512 + AMX", "avx2"]
