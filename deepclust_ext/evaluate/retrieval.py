"""What is near what in an embedding: each image is looked up among all others."""

from __future__ import annotations

import torch

from deepclust_ext._isolation import own_torch_state
from deepclust_ext.evaluate._checks import as_features, as_labels
from deepclust_ext.ops.knn import knn
from deepclust_ext.ops.knn_classify import count_votes

TOP = 5


@own_torch_state()
def retrieval_figures(features: object, y: object, *, k: int = 200, temperature: float = 0.1) -> dict[str, float]:
    r"""Tell how an embedding's neighbours agree with classes, each row left out of its own neighbours.

    Parameters
    ----------
    features : array or tensor, (N, d) float
        N >= 2; compared by cosine similarity.
    y : array or tensor, (N,) integer
        Classes.
    k : int
        Neighbours that vote; cut to N - 1.
    temperature : float
        tau, positive.

    Returns
    -------
    figures : dict
        `knn_accuracy`, that of the vote :math:`\arg\max_c \sum_{j \in N_k(i)} e^{\cos(x_i, x_j) / \tau} [y_j = c]`, as
        `knn_classify` takes it; `consistency`, the share of rows whose nearest neighbour is of their class; `top5`,
        the mean share of the five nearest that are.

    Raises
    ------
    ValueError
        If shapes disagree, there is a single row, or features are not finite.

    References
    ----------
    Super-AND, arXiv 2002.12158, sections 4.1 and 4.3.

    Examples
    --------
    >>> retrieval_figures([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]], [0, 0, 1, 1], k=1)["knn_accuracy"]
    1.0
    """
    points = torch.from_numpy(as_features("retrieval_figures", "features", features))
    classes = torch.from_numpy(as_labels("retrieval_figures", "y", y))
    if len(classes) != len(points) or len(points) < 2:
        raise ValueError(
            f"retrieval_figures: 'y' must have a label per row of 'features', two at least, got {len(classes)} "
            f"labels and {len(points)} rows"
        )
    found = knn(points, min(max(k, TOP), len(points) - 1), metric="cosine")
    near = classes[found.indices]
    same = (near == classes[:, None]).double()
    values = found.values[:, :k]
    weights = ((values - values[:, :1]) / temperature).exp()
    votes = count_votes(near[:, :k], weights, int(classes.max()) + 1, in_turn=False)
    return {
        "knn_accuracy": float((votes.argmax(1) == classes).double().mean()),
        "consistency": float(same[:, 0].mean()),
        f"top{TOP}": float(same[:, :TOP].mean()),
    }
