"""Probes of frozen features with labels: the weighted k-NN classifier and logistic regression."""

from __future__ import annotations

import torch

from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.evaluate._checks import as_probe_pair
from deepclust_ext.ops.knn_classify import knn_classify


@own_torch_state()
def knn_accuracy(
    train: object,
    y_train: object,
    test: object,
    y_test: object,
    *,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    r"""Return the accuracy of the weighted k-NN classifier on cosine similarity.

    .. math:: \hat y = \arg\max_c \sum_{j \in N_k(x)} e^{\cos(x, x_j) / \tau}\,[y_j = c]

    Parameters
    ----------
    train : array or tensor, (N, d) float
        Features of the labelled images; a zero row has similarity 0 with everything.
    y_train : array or tensor, (N,) integer
        Their classes.
    test : array or tensor, (M, d) float
        Features of the images to classify.
    y_test : array or tensor, (M,) integer
        Their classes, for the accuracy alone.
    k : int
        Neighbours that vote; cut to N.
    temperature : float
        tau, positive.

    Returns
    -------
    float
        Ties between classes go to the lowest.

    Raises
    ------
    ValueError
        If shapes disagree, features are not finite, or `k` or `temperature` is not positive.

    References
    ----------
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018, section 3.4.

    Examples
    --------
    >>> knn_accuracy([[1.0, 0.0], [0.0, 1.0]], [3, 5], [[2.0, 0.1]], [3], k=1)
    1.0
    """
    if k < 1:
        raise ValueError(f"knn_accuracy: 'k' must be at least 1, got {k!r}")
    if not temperature > 0:
        raise ValueError(f"knn_accuracy: 'temperature' must be positive, got {temperature!r}")
    gallery, classes, queries, truth = as_probe_pair("knn_accuracy", train, y_train, test, y_test)
    bank, labels, asked = (torch.from_numpy(a) for a in (gallery, classes, queries))
    found = knn_classify(bank, labels, asked, k=k, temperature=temperature).labels
    return float((found == torch.from_numpy(truth)).double().mean())


@own_torch_state()
def linear_probe(
    train: object, y_train: object, test: object, y_test: object, *, seed: int = 0, max_iter: int = 1000
) -> float:
    """Return the test accuracy of logistic regression on frozen features, standardised on the training rows.

    Parameters
    ----------
    train : array or tensor, (N, d) float
        Features of the training images, computed once by the caller.
    y_train : array or tensor, (N,) integer
        Their classes, at least two.
    test : array or tensor, (M, d) float
        Features of the test images.
    y_test : array or tensor, (M,) integer
        Their classes, for the accuracy alone.
    seed : int
        scikit-learn's `random_state`; its default solver draws nothing, so the result does not depend on it.
    max_iter : int
        Iterations of the solver; scikit-learn warns where they do not suffice.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If shapes disagree, features are not finite, or the training labels are a single class.

    Examples
    --------
    >>> linear_probe([[0.0], [1.0], [4.0], [5.0]], [0, 0, 1, 1], [[-1.0], [6.0]], [0, 1])
    1.0
    """
    gallery, classes, queries, truth = as_probe_pair("linear_probe", train, y_train, test, y_test)
    if classes.min() == classes.max():
        raise ValueError(f"linear_probe: 'y_train' must hold at least two classes, got only {classes[0]}")
    scaler = require("sklearn.preprocessing").StandardScaler()
    model = require("sklearn.linear_model").LogisticRegression(max_iter=max_iter, random_state=seed)
    model.fit(scaler.fit_transform(gallery), classes)
    return float(model.score(scaler.transform(queries), truth))
