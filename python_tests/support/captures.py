"""The ops that a CUDA graph cannot record, and the sentence they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

import deepclust_ext

SENTENCE = r"^{}: a CUDA graph cannot record it, for it waits .*\n  call it outside of the capture"

# Of points (n, d), n > d >= 2, and their classes.
REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "kmeans": lambda x, _: deepclust_ext.kmeans(x, 3),
    "kmeans random": lambda x, _: deepclust_ext.kmeans(x, 3, init="random"),
    "kmeans_assign": lambda x, _: deepclust_ext.kmeans_assign(x, x[:3]),
    "knn": lambda x, _: deepclust_ext.knn(x, 2),
    "knn_classify": lambda x, labels: deepclust_ext.knn_classify(x, labels, x[:5], k=3),
    "pca_whiten": lambda x, _: deepclust_ext.pca_whiten(x, 2),
}
