"""Neighbourhoods in a bank against brute force, and what the log says of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from deepclust_ext.evaluate import retrieval_figures
from deepclust_ext.training.discovery import bank_figures, discover


def rows(n=37, d=6, seed=0):
    return functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def entropy_of(bank, tau, *, own):
    found = []
    for i in range(len(bank)):
        logits = [float(bank[i].double() @ bank[j].double()) / tau for j in range(len(bank)) if own or j != i]
        total = sum(map(math.exp, logits))
        found.append(-sum(math.exp(z) / total * math.log(math.exp(z) / total) for z in logits))
    return torch.tensor(found)


@pytest.mark.parametrize("k", [1, 3, 36])
@pytest.mark.parametrize("n_anchors", [0, 1, 9, 37])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_neighbours_and_anchors_are_those_of_brute_force(k, n_anchors, tau):
    # Rows of a bank that were never updated are not quite of length 1.
    bank = rows() * torch.linspace(0.8, 1.2, 37)[:, None]
    found = discover(bank, k, n_anchors, temperature=tau)
    expected = entropy_of(bank, tau, own=True)
    torch.testing.assert_close(found.entropy, expected.float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.anchors, expected.argsort()[:n_anchors].sort().values)
    for i in range(37):
        others = sorted((j for j in range(37) if j != i), key=lambda j: -float(bank[i] @ bank[j]))[:k]
        assert found.neighbors[i].tolist() == (others if i in found.anchors else [-1] * k)


def test_ties_go_to_the_lowest_index(monkeypatch):
    bank = torch.eye(4).repeat(3, 1)
    # Entropies of copies of a row may differ by rounding.
    monkeypatch.setattr("deepclust_ext.training.discovery.shared_entropy", lambda *_, **__: torch.ones(12))
    found = discover(bank, 1, 5, temperature=0.1)
    assert found.anchors.tolist() == [0, 1, 2, 3, 4]
    assert found.neighbors[:5, 0].tolist() == [4, 5, 6, 7, 0]


def test_figures_of_neighbourhoods():
    found = discover(rows(), 2, 9, temperature=0.1)
    classes = torch.arange(37) % 3
    same = [int(classes[i] == classes[j]) for i in found.anchors for j in found.neighbors[i]]
    figures = found.figures(classes)
    assert figures == {
        "anchors": 9,
        "entropy": pytest.approx(float(found.entropy.mean())),
        "anchor_consistency": pytest.approx(sum(same) / 18),
    }
    assert "anchor_consistency" not in found.figures(None)
    assert "anchor_consistency" not in discover(rows(), 2, 0, temperature=0.1).figures(classes)


def test_figures_of_a_bank():
    bank, classes = rows(), torch.arange(37) % 3
    plain, scored = bank_figures(bank, None, temperature=0.2), bank_figures(bank, classes, temperature=0.2)
    assert plain == {"unification_entropy": pytest.approx(float(entropy_of(bank, 0.2, own=False).mean()), rel=1e-5)}
    assert scored == plain | retrieval_figures(bank, classes)


# Retrieval


@pytest.mark.parametrize(("k", "tau"), [(1, 0.1), (4, 0.1), (9, 2.0), (200, 0.5)])
def test_retrieval_is_its_definition(k, tau):
    points = rows(seed=1) * torch.linspace(0.1, 3, 37)[:, None]
    y = np.arange(37) % 3
    unit = functional.normalize(points.double(), dim=1)
    right = near = top = 0
    for i in range(37):
        order = sorted((j for j in range(37) if j != i), key=lambda j: -float(unit[i] @ unit[j]))
        votes = [sum(math.exp(float(unit[i] @ unit[j]) / tau) for j in order[:k] if y[j] == c) for c in range(3)]
        right += int(np.argmax(votes) == y[i])
        near += int(y[order[0]] == y[i])
        top += sum(y[j] == y[i] for j in order[:5]) / 5
    found = retrieval_figures(points, y, k=k, temperature=tau)
    assert found == pytest.approx({"knn_accuracy": right / 37, "consistency": near / 37, "top5": top / 37})


def test_copies_are_found_and_no_row_finds_itself():
    points = torch.eye(3).repeat(2, 1)
    assert retrieval_figures(points, [0, 1, 2, 0, 1, 2])["consistency"] == 1
    assert retrieval_figures(points, [0, 1, 2, 3, 4, 5])["consistency"] == 0
    assert retrieval_figures([[1.0], [1.0]], [0, 0]) == {"knn_accuracy": 1.0, "consistency": 1.0, "top5": 1.0}


@pytest.mark.parametrize(
    ("points", "y"),
    [([[1.0]], [0]), ([[1.0], [2.0]], [0]), ([[1.0], [float("nan")]], [0, 1]), ([[1.0], [2.0]], [0, -1])],
)
def test_what_retrieval_refuses(points, y):
    with pytest.raises(ValueError, match="retrieval_figures: '"):
        retrieval_figures(points, y)
