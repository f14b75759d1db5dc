"""From clusters to classes: the table of counts, two ways to match, and how a mapping is applied."""

from __future__ import annotations

import numpy as np

from deepclust_ext._optional import require
from deepclust_ext.evaluate._checks import Labels, as_array, as_label_pair, as_labels

UNMATCHED = -1
MAX_COUNTS = 2**27  # 1 GiB


def contingency(labels: object, y: object) -> Labels:
    """Count the images of every cluster and class.

    Parameters
    ----------
    labels : array or tensor, (N,) integer
        Clusters, 0 to K - 1; one that no image has gives a row of zeros.
    y : array or tensor, (N,) integer
        Classes; column c belongs to the c-th of the sorted classes that occur.

    Returns
    -------
    ndarray, (K, n_classes) int64

    Raises
    ------
    ValueError
        If lengths differ, a label is negative, there are none, or a cluster's number makes the table too large.

    Examples
    --------
    >>> contingency([0, 0, 2], [7, 9, 9])
    array([[1, 1],
           [0, 0],
           [0, 1]])
    """
    clusters, classes = as_label_pair("contingency", labels, y)
    _, columns = np.unique(classes, return_inverse=True)
    n_clusters, n_classes = int(clusters.max()) + 1, int(columns.max()) + 1
    if n_clusters * n_classes > MAX_COUNTS:
        raise ValueError(
            f"contingency: 'labels' must number the clusters from 0, got a label {n_clusters - 1}, a table too large "
            "to hold; renumber them with np.unique(labels, return_inverse=True)[1]"
        )
    counts = np.bincount(clusters * n_classes + columns, minlength=n_clusters * n_classes)
    return counts.reshape(n_clusters, n_classes).astype(np.int64)


def hungarian_mapping(labels: object, y: object) -> Labels:
    """Match clusters to classes one to one so that the most images agree.

    Parameters
    ----------
    labels : array or tensor, (N,) integer
        Clusters, 0 to K - 1.
    y : array or tensor, (N,) integer
        Classes, any non-negative integers.

    Returns
    -------
    ndarray, (K,) int64
        The class of each cluster; -1 for an empty cluster, and for those left over when there are more
        clusters than classes. With fewer clusters than classes some classes are no cluster's.

    Raises
    ------
    ValueError
        If lengths differ, a label is negative, or there are none.
    TypeError
        If labels are not integers.

    References
    ----------
    Kuhn, The Hungarian method for the assignment problem, 1955.

    Examples
    --------
    >>> hungarian_mapping([0, 0, 1, 1, 2], [5, 5, 3, 3, 3])
    array([ 5,  3, -1])
    """
    clusters, classes = as_label_pair("hungarian_mapping", labels, y)
    table = contingency(clusters, classes)
    occupied = np.flatnonzero(table.sum(axis=1))
    optimize = require("scipy.optimize")
    rows, columns = optimize.linear_sum_assignment(table[occupied], maximize=True)
    mapping = np.full(len(table), UNMATCHED, dtype=np.int64)
    mapping[occupied[rows]] = np.unique(classes)[columns]
    return mapping


def majority_mapping(labels: object, y: object) -> Labels:
    """Give every cluster its most frequent class; several clusters may share one.

    Parameters
    ----------
    labels : array or tensor, (N,) integer
        Clusters, 0 to K - 1.
    y : array or tensor, (N,) integer
        Classes, any non-negative integers.

    Returns
    -------
    ndarray, (K,) int64
        The class of each cluster, the lowest where counts tie; -1 for an empty cluster.

    Examples
    --------
    >>> majority_mapping([0, 0, 1, 1, 3], [5, 5, 3, 3, 3])
    array([ 5,  3, -1,  3])
    """
    clusters, classes = as_label_pair("majority_mapping", labels, y)
    table = contingency(clusters, classes)
    mapping: Labels = np.unique(classes)[table.argmax(axis=1)]
    mapping[table.sum(axis=1) == 0] = UNMATCHED
    return mapping


def apply_mapping(labels: object, mapping: object) -> Labels:
    """Turn clusters into classes by a mapping fitted earlier, on training labels for example.

    Parameters
    ----------
    labels : array or tensor, (N,) integer
        Clusters.
    mapping : array or tensor, (K,) integer
        Class of each cluster, as `hungarian_mapping` and `majority_mapping` return it.

    Returns
    -------
    ndarray, (N,) int64
        Classes; -1, which agrees with no class, where the cluster is unmatched or lies beyond the mapping
        because no training image had it.

    Examples
    --------
    >>> apply_mapping([0, 1, 2, 3], [5, 3, -1])
    array([ 5,  3, -1, -1])
    """
    clusters = as_labels("apply_mapping", "labels", labels)
    classes = as_array(mapping)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"apply_mapping: 'mapping' must be integers of shape (K,), got {classes.dtype} of {classes.shape}"
        )
    known = clusters < len(classes)
    mapped = np.full(len(clusters), UNMATCHED, dtype=np.int64)
    mapped[known] = classes[clusters[known]]
    return mapped
