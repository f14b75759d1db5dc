"""Deep clustering: fast kernels for PyTorch, and trainers from a folder of images to labels.csv."""

from __future__ import annotations

from deepclust_ext._loader import build_info
from deepclust_ext._version import __version__
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.ops.dhog_loss import DHOGLoss, dhog_loss
from deepclust_ext.ops.knn import KNN, knn
from deepclust_ext.ops.knn_classify import KNNClassification, knn_classify
from deepclust_ext.ops.mi_loss import iic_loss, mi_loss

__all__ = [
    "KNN",
    "DHOGLoss",
    "DeepclustWarning",
    "KNNClassification",
    "__version__",
    "build_info",
    "dhog_loss",
    "iic_loss",
    "knn",
    "knn_classify",
    "mi_loss",
]
