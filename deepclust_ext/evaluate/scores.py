"""Scores of a clustering against classes: accuracy under two mappings, NMI and ARI."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deepclust_ext._optional import require
from deepclust_ext.evaluate._checks import as_label_pair
from deepclust_ext.evaluate.mapping import apply_mapping, hungarian_mapping, majority_mapping


def acc_hungarian(labels: object, y: object, *, mapping: object | None = None) -> float:
    """Return the share of images whose cluster is matched to their class, one to one.

    Parameters
    ----------
    labels, y : array or tensor, (N,) integer
        Clusters and classes.
    mapping : array or tensor, (K,) integer, optional
        A mapping fitted elsewhere; without one it is fitted on `labels` and `y` themselves.

    Returns
    -------
    float
        Images in unmatched clusters count as wrong.

    Examples
    --------
    >>> acc_hungarian([1, 1, 0, 0, 2], [0, 0, 1, 1, 1])
    0.8
    """
    clusters, classes = as_label_pair("acc_hungarian", labels, y)
    mapping = hungarian_mapping(clusters, classes) if mapping is None else mapping
    return float((apply_mapping(clusters, mapping) == classes).mean())


def acc_majority(labels: object, y: object, *, mapping: object | None = None) -> float:
    """Return the share of images that have their cluster's most frequent class (purity).

    Parameters
    ----------
    labels, y : array or tensor, (N,) integer
        Clusters and classes.
    mapping : array or tensor, (K,) integer, optional
        A mapping fitted elsewhere; without one it is fitted on `labels` and `y` themselves.

    Returns
    -------
    float
        Never below `acc_hungarian` on the data it is fitted on, and 1 when every image is its own cluster.

    Examples
    --------
    >>> acc_majority([1, 1, 0, 0, 2], [0, 0, 1, 1, 1])
    1.0
    """
    clusters, classes = as_label_pair("acc_majority", labels, y)
    mapping = majority_mapping(clusters, classes) if mapping is None else mapping
    return float((apply_mapping(clusters, mapping) == classes).mean())


def nmi(labels: object, y: object, *, average: Literal["arithmetic", "geometric"] = "arithmetic") -> float:
    r"""Return the normalised mutual information of two labellings.

    .. math:: \mathrm{MI}(a, b) / \mathrm{mean}(H(a), H(b))

    Parameters
    ----------
    labels, y : array or tensor, (N,) integer
        Two labellings.
    average : "arithmetic" or "geometric"
        The mean of the two entropies; older papers and JULE use the geometric one.

    Returns
    -------
    float
        In [0, 1]; 0 if either labelling is a single cluster, even when both are.

    Examples
    --------
    >>> nmi([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    """
    if average not in ("arithmetic", "geometric"):
        raise ValueError(f"nmi: 'average' must be 'arithmetic' or 'geometric', got {average!r}")
    first, second = as_label_pair("nmi", labels, y)
    # scikit-learn calls two single clusters a perfect match; a collapsed run must not score 1.
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    metrics = require("sklearn.metrics")
    return float(metrics.normalized_mutual_info_score(first, second, average_method=average))


def nmi_views(labels_a: object, labels_b: object) -> float:
    """Return NMI(z, z') of the labels of two views of the same images, by which DHOG chooses its head.

    Parameters
    ----------
    labels_a, labels_b : array or tensor, (N,) integer
        Clusters of image i under one augmentation and under another.

    Returns
    -------
    float
        Arithmetic NMI; 0 if a view falls into a single cluster.

    References
    ----------
    DHOG, section 4: "unsupervised posthoc head selection using NMI(z, z')".
    """
    first, second = as_label_pair("nmi_views", labels_a, labels_b, ("labels_a", "labels_b"))
    return nmi(first, second)


def ari(labels: object, y: object) -> float:
    """Return the adjusted Rand index: agreement on pairs, 0 for chance and 1 for equality.

    Parameters
    ----------
    labels, y : array or tensor, (N,) integer
        Two labellings.

    Returns
    -------
    float
        0 if either labelling is a single cluster, even when both are.

    Examples
    --------
    >>> ari([0, 0, 1, 1], [1, 1, 0, 0])
    1.0
    """
    first, second = as_label_pair("ari", labels, y)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(require("sklearn.metrics").adjusted_rand_score(first, second))


def scores(labels: object, y: object, *, train: tuple[object, object] | None = None) -> dict[str, float]:
    """Return every score of a clustering against classes.

    Parameters
    ----------
    labels, y : array or tensor, (N,) integer
        Clusters and classes; their numbers may differ.
    train : (labels, y), optional
        Training clusters and classes on which both mappings are fitted, as the papers do for test images;
        without them the mappings are fitted on `labels` and `y` themselves.

    Returns
    -------
    dict
        Keys acc_hungarian, acc_majority, nmi, nmi_geometric, ari.

    Raises
    ------
    ValueError
        If lengths differ, a label is negative, or there are none.

    Examples
    --------
    >>> scores([1, 1, 0, 0], [0, 0, 1, 1])["acc_hungarian"]
    1.0
    """
    clusters, classes = as_label_pair("scores", labels, y)
    fitted = as_label_pair("scores", *train, names=("train[0]", "train[1]")) if train else (clusters, classes)
    return {
        "acc_hungarian": acc_hungarian(clusters, classes, mapping=hungarian_mapping(*fitted)),
        "acc_majority": acc_majority(clusters, classes, mapping=majority_mapping(*fitted)),
        "nmi": nmi(clusters, classes),
        "nmi_geometric": nmi(clusters, classes, average="geometric"),
        "ari": ari(clusters, classes),
    }
