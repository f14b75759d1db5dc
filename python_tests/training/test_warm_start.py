"""Numbers that last from one fit to the next."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepclust_ext.data import EmbeddingData
from deepclust_ext.runs import RunError
from deepclust_ext.training.regrouping import regroup
from deepclust_ext.training.warm_start import Earlier


def test_most_images_keep_their_number():
    old = np.array([3, 3, 3, 0, 0, 0, 5, 5, -1])
    new = np.array([0, 0, 1, 1, 1, 1, 2, 2, 2])
    numbers, record = Earlier("run", old).numbers(new, 3)
    assert numbers.tolist() == [3, 0, 5]
    assert record == {"run": "run", "n_images": 8, "n_kept": 7, "new_clusters": [], "lost_clusters": []}


def test_a_cluster_without_a_match_gets_a_number_that_none_had():
    old = np.array([0, 0, 0, 0, 2, 2, -1, -1])
    new = np.array([1, 1, 1, 0, 2, 2, 3, 3])
    numbers, record = Earlier("run", old).numbers(new, 6)
    # Cluster 0 shares an image with 0, which 1 has; 3 has new images alone; nobody is in 4 and 5.
    assert numbers.tolist() == [1, 0, 2, 3, 4, 5]
    assert record["new_clusters"] == [1, 3]
    assert record["n_kept"] == 5
    numbers, record = Earlier("run", np.array([0, 0, 1, 1, 2, 2])).numbers(np.array([1, 1, 1, 1, 0, 0]), 2)
    assert numbers.tolist() == [2, 0]
    assert record["lost_clusters"] == [1]


def test_sizes_and_numbers_go_together():
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([50, 4, 20]))
    rows = torch.randn(74, 2, generator=generator) + 9.0 * labels[:, None]
    regrouping, clusters = regroup(rows, labels, 3, min_size=5, max_size=40)
    numbers = torch.tensor([7, 9, 8, 2])
    found = regrouping.renumbered(numbers)
    assert torch.equal(found.apply(labels, rows), numbers[clusters])
    assert found.n_numbers == 9


def test_earlier_clusters_are_found_by_name(tmp_path):
    (tmp_path / "labels.csv").write_text('path,cluster,confidence\nb,4,1\n"a, 1",0,1\ngone,2,1\nunsure,-1,0\n')
    items = EmbeddingData(torch.zeros(4, 2), names=("new", "a, 1", "unsure", "b"))
    found = Earlier.of_run(tmp_path, items)
    assert found.clusters.tolist() == [-1, 0, -1, 4]
    with pytest.raises(RunError, match=r"must have clustered some of the 1 embeddings, got none of the same name"):
        Earlier.of_run(tmp_path, EmbeddingData(torch.zeros(1, 2), names=("unknown",)))
    (tmp_path / "labels.csv").write_text("path,label\nb,4\n")
    with pytest.raises(RunError, match=r"is no labels.csv: it must have the columns path, cluster"):
        Earlier.of_run(tmp_path, items)
