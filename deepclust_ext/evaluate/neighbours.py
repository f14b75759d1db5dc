"""What an embedding keeps: the classes of neighbours, and who is a neighbour in few dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext import knn
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.evaluate._checks import Array, as_features, as_labels

# Rows of distances to all images that are held at once, in entries.
_ENTRIES = 2**24


@own_torch_state()
def neighbour_purity(features: object, y: object, *, ks: Sequence[int] = (1, 5, 10, 50, 100)) -> dict[int, float]:
    r"""Return the mean share of the k nearest neighbours that have an image's own class, for each k.

    .. math:: P_k = \frac{1}{N k} \sum_i \sum_{j \in N_k(i)} [y_j = y_i]

    Parameters
    ----------
    features : array or tensor, (N, d) float
        Pixels or embeddings; neighbours are the nearest by Euclidean distance, the image itself apart.
    y : array or tensor, (N,) integer
        Classes.
    ks : sequence of int
        Each between 1 and N - 1.

    Returns
    -------
    dict of int to float

    Raises
    ------
    ValueError
        If shapes disagree, features are not finite, or a k is out of range.

    References
    ----------
    Yang, Parikh and Batra, CVPR 2016, figure 8.

    Examples
    --------
    >>> neighbour_purity([[0.0], [1.0], [5.0], [6.0]], [0, 0, 1, 1], ks=(1,))
    {1: 1.0}
    """
    points, classes = _pair("neighbour_purity", features, y)
    if not ks:
        raise ValueError("neighbour_purity: 'ks' must hold at least one number, got none")
    for k in ks:
        check.whole_number("neighbour_purity", "ks", k, at_least=1, at_most=len(points) - 1)
    same = classes[knn(points, max(ks)).indices] == classes[:, None]
    return {int(k): float(same[:, :k].double().mean()) for k in ks}


@own_torch_state()
def trustworthiness(data: object, embedding: object, *, k: int = 12) -> float:
    r"""Return T(k): whether those who are neighbours in an embedding are so in the data.

    .. math:: T(k) = 1 - \frac{2}{N k (2 N - 3 k - 1)} \sum_i \sum_{j \in U_k(i)} (r(i, j) - k)

    with U_k(i) the k nearest of image i in the embedding that are none of its k nearest in the data, and r(i, j) the
    rank of j among all by the distance from i in the data.

    Parameters
    ----------
    data : array or tensor, (N, D) float
        What was embedded. Equal distances share the better rank.
    embedding : array or tensor, (N, d) float
        Euclidean distances count in both.
    k : int
        Below N / 2.

    Returns
    -------
    float
        1 if no neighbour is false. Memory grows with N, time with its square.

    Raises
    ------
    ValueError
        If shapes disagree, values are not finite, or `k` is out of range.

    References
    ----------
    Venna and Kaski, "Neighborhood preservation in nonlinear projection methods", 2001; van der Maaten, "Learning a
    parametric embedding by preserving local structure", 2009, which has T(12).

    Examples
    --------
    >>> points = [[0.0], [1.0], [3.0], [7.0], [15.0]]
    >>> trustworthiness(points, points, k=2)
    1.0
    """
    origin = _tensor(as_features("trustworthiness", "data", data)).double()
    points = _tensor(as_features("trustworthiness", "embedding", embedding))
    n = len(origin)
    if len(points) != n:
        raise ValueError(f"trustworthiness: 'embedding' must have a row per row of 'data' ({n}), got {len(points)}")
    k = check.whole_number("trustworthiness", "k", k, at_least=1)
    if 2 * k >= n:
        raise ValueError(f"trustworthiness: 'k' must be below half the number of rows ({n}), got {k}")
    near = knn(points, k).indices
    # Far from the origin the products below would lose what tells distances apart.
    origin = origin - origin.mean(0)
    squares, false = origin.square().sum(1), 0
    for rows in torch.arange(n).split(max(1, _ENTRIES // n)):
        distances = torch.addmm(squares, origin[rows], origin.T, alpha=-2.0)
        distances[torch.arange(len(rows)), rows] = torch.inf
        for own in distances.gather(1, near[rows]).T:
            ranks = 1 + (distances < own[:, None]).sum(1)
            false += int((ranks - k).clamp_min(0).sum())
    return 1.0 - 2.0 * false / (n * k * (2 * n - 3 * k - 1))


@own_torch_state()
def low_dimensional(
    embeddings: object, y: object, data: object, *, dims: Sequence[int] = (2, 10, 30), k: int = 12
) -> dict[int, dict[str, float]]:
    """Say how good the principal components of embeddings are as an embedding in few dimensions.

    Parameters
    ----------
    embeddings : array or tensor, (N, d) float
        A network's. Those of a network that was trained with so many dimensions are taken as they are.
    y : array or tensor, (N,) integer
        Classes.
    data : array or tensor, (N, D) float
        What was embedded, such as pixels.
    dims : sequence of int
        Principal components; those beyond d are left out.
    k : int
        Of `trustworthiness`.

    Returns
    -------
    dict of int to dict
        For each dimension `one_nn_error`, the share of images whose nearest other has another class, and
        `trustworthiness`.

    Raises
    ------
    ValueError
        As `neighbour_purity` and `trustworthiness` do.

    References
    ----------
    Yang, Parikh and Batra, CVPR 2016, tables 13 and 14, where the network itself has so many dimensions.
    """
    points, _ = _pair("low_dimensional", embeddings, y)
    points = points.double() - points.double().mean(0)
    # Their directions by falling variance; the signs change no distance.
    axes = torch.linalg.eigh(points.T @ points).eigenvectors.flip(1)
    found = {}
    for d in dims:
        check.whole_number("low_dimensional", "dims", d, at_least=1)
        if d <= points.shape[1]:
            placed = points @ axes[:, :d]
            error = 1.0 - neighbour_purity(placed, y, ks=(1,))[1]
            found[int(d)] = {"one_nn_error": error, "trustworthiness": trustworthiness(data, placed, k=k)}
    return found


def _pair(function: str, features: object, y: object) -> tuple[Tensor, Tensor]:
    """Features and their classes as tensors."""
    points, classes = as_features(function, "features", features), as_labels(function, "y", y)
    if len(points) != len(classes):
        raise ValueError(f"{function}: 'y' must have a label per row ({len(points)}), got {len(classes)}")
    return _tensor(points), _tensor(classes)


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
