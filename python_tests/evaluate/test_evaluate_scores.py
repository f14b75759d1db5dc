"""Scores: tables worked by hand, scikit-learn, invariances, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from deepclust_ext.evaluate import (
    acc_hungarian,
    acc_majority,
    apply_mapping,
    ari,
    contingency,
    hungarian_mapping,
    majority_mapping,
    nmi,
    nmi_views,
    scores,
)

# Clusters x classes 0, 1, 2: [[5, 1, 0], [4, 3, 0], [0, 0, 2]]. One to one the best is 5 + 3 + 2 = 10 of 15;
# each cluster's largest class gives 5 + 4 + 2 = 11.
TABLE = np.array([[5, 1, 0], [4, 3, 0], [0, 0, 2]])
LABELS, Y = (np.repeat(index.ravel(), TABLE.ravel()) for index in np.indices(TABLE.shape))

pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 5), min_size=n, max_size=n),
        st.lists(st.integers(0, 4), min_size=n, max_size=n),
    )
)
fast = settings(max_examples=40, deadline=None)


def test_a_table_by_hand():
    assert contingency(LABELS, Y).tolist() == TABLE.tolist()
    assert hungarian_mapping(LABELS, Y).tolist() == [0, 1, 2]
    assert majority_mapping(LABELS, Y).tolist() == [0, 0, 2]
    assert acc_hungarian(LABELS, Y) == pytest.approx(10 / 15)
    assert acc_majority(LABELS, Y) == pytest.approx(11 / 15)


def test_nmi_and_ari_by_hand():
    # Equal halves against quarters: MI = ln 2, H = ln 2 and ln 4.
    halves, quarters = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3]
    assert nmi(halves, quarters) == pytest.approx(2 / 3)
    assert nmi(halves, quarters, average="geometric") == pytest.approx(2**-0.5)
    # Pairs together: 4 in both, 12 and 4 in each, of 28: (4 - 12*4/28) / (8 - 12*4/28).
    assert ari(halves, quarters) == pytest.approx((4 - 48 / 28) / (8 - 48 / 28))


@fast
@given(pairs)
def test_hungarian_is_the_best_one_to_one_mapping(pair):
    labels, y = map(np.array, pair)
    clusters, classes = np.unique(labels), np.unique(y)
    size = max(len(clusters), len(classes))
    padded = [*classes, *[-1] * (size - len(classes))]
    best = max(
        sum(np.sum((labels == k) & (y == c)) for k, c in zip(clusters, order, strict=False))
        for order in itertools.permutations(padded, len(clusters))
    )
    assert acc_hungarian(labels, y) == pytest.approx(best / len(y))


@fast
@given(pairs)
def test_scores_equal_scikit_learns(pair):
    labels, y = map(np.array, pair)
    if min(len(np.unique(labels)), len(np.unique(y))) == 1:
        assert nmi(labels, y) == nmi(labels, y, average="geometric") == ari(labels, y) == 0.0
        return
    for average in ("arithmetic", "geometric"):
        expected = metrics.normalized_mutual_info_score(labels, y, average_method=average)
        assert nmi(labels, y, average=average) == pytest.approx(expected)
    assert ari(labels, y) == pytest.approx(metrics.adjusted_rand_score(labels, y))
    purity = metrics.cluster.contingency_matrix(labels, y).max(axis=1).sum() / len(y)
    assert acc_majority(labels, y) == pytest.approx(purity)


@fast
@given(pairs, st.permutations(range(6)), st.permutations(range(5)), st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_names_or_order(pair, cluster_names, class_names, random):
    labels, y = map(np.array, pair)
    order = list(range(len(y)))
    random.shuffle(order)
    renamed = scores(np.array(cluster_names)[labels][order], np.array(class_names)[y][order])
    assert renamed == pytest.approx(scores(labels, y))


@fast
@given(pairs)
def test_ranges_and_order(pair):
    result = scores(*pair)
    assert list(result) == ["acc_hungarian", "acc_majority", "nmi", "nmi_geometric", "ari"]
    assert 0 < result["acc_hungarian"] <= result["acc_majority"] <= 1
    assert -1e-12 <= result["nmi"] <= result["nmi_geometric"] + 1e-12 <= 1 + 1e-9


@fast
@given(pairs)
def test_mapping_has_a_class_once(pair):
    mapping = hungarian_mapping(*pair)
    matched = mapping[mapping >= 0]
    assert len(set(matched.tolist())) == len(matched) == min(len(set(pair[0])), len(set(pair[1])))
    assert set(matched.tolist()) <= set(pair[1])


def test_more_clusters_than_classes_leaves_some_unmatched():
    labels, y = [0, 0, 1, 2, 2, 2], [7, 7, 7, 9, 9, 9]
    assert hungarian_mapping(labels, y).tolist() == [7, -1, 9]
    assert acc_hungarian(labels, y) == pytest.approx(5 / 6)
    assert acc_majority(labels, y) == 1.0


def test_fewer_clusters_than_classes():
    labels, y = [0, 0, 0, 1, 1], [4, 4, 2, 3, 3]
    assert hungarian_mapping(labels, y).tolist() == [4, 3]
    assert acc_hungarian(labels, y) == pytest.approx(4 / 5)


def test_empty_clusters_take_no_class():
    assert hungarian_mapping([1, 1, 4], [0, 0, 1]).tolist() == [-1, 0, -1, -1, 1]
    assert majority_mapping([1, 1, 4], [0, 0, 1]).tolist() == [-1, 0, -1, -1, 1]


def test_single_cluster_scores():
    result = scores([0, 0, 0, 0], [1, 1, 1, 2])
    assert result == {"acc_hungarian": 0.75, "acc_majority": 0.75, "nmi": 0, "nmi_geometric": 0, "ari": 0}
    both = scores([3, 3], [1, 1])
    assert (both["acc_hungarian"], both["nmi"], both["nmi_geometric"], both["ari"]) == (1, 0, 0, 0)
    assert nmi_views([2, 2, 2], [2, 2, 2]) == 0


def test_majority_ties_go_to_the_lowest_class():
    assert majority_mapping([0, 0], [8, 3]).tolist() == [3]


def test_mapping_is_fitted_on_train_and_applied_to_test():
    train = ([0, 0, 1, 1, 2], [0, 0, 1, 1, 1])
    test_labels, test_y = [0, 1, 1, 2, 3], [0, 1, 0, 1, 1]
    assert apply_mapping(test_labels, hungarian_mapping(*train)).tolist() == [0, 1, 1, -1, -1]
    result = scores(test_labels, test_y, train=train)
    assert result["acc_hungarian"] == pytest.approx(2 / 5)
    assert result["acc_majority"] == pytest.approx(3 / 5)
    assert result["nmi"] == nmi(test_labels, test_y)
    # A mapping fitted on the test labels themselves would flatter.
    assert scores([0, 1], [1, 0], train=([0, 1], [0, 1]))["acc_hungarian"] == 0
    assert scores([0, 1], [1, 0])["acc_hungarian"] == 1


def test_train_and_test_may_differ_in_clusters_seen():
    assert apply_mapping([5], [0, 1]).tolist() == [-1]
    assert acc_hungarian([0], [1], mapping=[0, 1, 2]) == 0


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor, lambda v: np.array(v, dtype=np.uint8)])
def test_arrays_tensors_and_lists_are_the_same(convert):
    assert scores(convert(LABELS.tolist()), convert(Y.tolist())) == scores(LABELS, Y)


def test_nmi_views_is_the_arithmetic_nmi():
    assert nmi_views(LABELS, Y) == nmi(LABELS, Y) != nmi(LABELS, Y, average="geometric")


@pytest.mark.parametrize(
    "function",
    [scores, acc_hungarian, acc_majority, hungarian_mapping, majority_mapping, nmi, ari, contingency],
)
def test_what_is_refused(function):
    name = function.__name__
    with pytest.raises(ValueError, match=rf"{name}: 'y' must be as long as 'labels' \(3\), got 2"):
        function([0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match=f"{name}: 'labels' must be non-negative, got -1; drop the unlabelled"):
        function([0, -1], [0, 1])
    with pytest.raises(ValueError, match=f"{name}: 'y' must be non-negative, got -2"):
        function([0, 1], [0, -2])
    with pytest.raises(ValueError, match=f"{name}: 'labels' must hold at least one label, got none"):
        function([], [])
    with pytest.raises(ValueError, match=rf"{name}: 'labels' must have shape \(N,\), got shape \(1, 2\)"):
        function([[0, 1]], [0, 1])
    with pytest.raises(TypeError, match=f"{name}: 'labels' must be integers, got float64"):
        function([0.0, 1.0], [0, 1])


def test_cluster_numbers_far_apart_do_not_fill_the_memory():
    with pytest.raises(ValueError, match="must number the clusters from 0, got a label 1000000000"):
        scores([0, 10**9], [0, 1])
    assert scores([0, 1], [0, 2**62])["acc_hungarian"] == 1  # classes are numbered anew
    assert apply_mapping([0, 2**62], [5]).tolist() == [5, -1]


def test_other_refusals():
    with pytest.raises(ValueError, match="nmi: 'average' must be 'arithmetic' or 'geometric', got 'max'"):
        nmi([0, 1], [0, 1], average="max")
    with pytest.raises(ValueError, match=r"scores: 'train\[1\]' must be as long as 'train\[0\]'"):
        scores([0, 1], [0, 1], train=([0, 1], [0]))
    with pytest.raises(ValueError, match="nmi_views: 'labels_b' must be as long as 'labels_a'"):
        nmi_views([0, 1], [0])
    with pytest.raises(ValueError, match="apply_mapping: 'mapping' must be integers"):
        apply_mapping([0, 1], [0.0, 1.0])
