"""Every op in plain torch, readable and float64-capable; used by tests and benchmarks only."""

from __future__ import annotations

from deepclust_ext.reference.dhog_loss import dhog_loss
from deepclust_ext.reference.knn import knn, knn_classify
from deepclust_ext.reference.mi_loss import mi_loss

__all__ = ["dhog_loss", "knn", "knn_classify", "mi_loss"]
