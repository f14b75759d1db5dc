"""Deep clustering: fast kernels for PyTorch, and trainers from a folder of images to labels.csv."""

from __future__ import annotations

from deepclust_ext._loader import build_info
from deepclust_ext._version import __version__
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.ops.affinity_graph import AffinityGraph, affinity_graph
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.ops.augmentation_loss import augmentation_loss
from deepclust_ext.ops.bank_nll_entropy import bank_entropy, bank_nll, bank_nll_entropy
from deepclust_ext.ops.bank_update import bank_update_
from deepclust_ext.ops.cut import Agglomeration, cut
from deepclust_ext.ops.dhog_loss import DHOGLoss, dhog_loss
from deepclust_ext.ops.dim_jsd_loss import dim_jsd_loss
from deepclust_ext.ops.gmm_kl_loss import gmm_kl_loss
from deepclust_ext.ops.initial_clusters import initial_clusters
from deepclust_ext.ops.jule_loss import jule_loss
from deepclust_ext.ops.kmeans import KMeansIteration, KMeansResult, kmeans
from deepclust_ext.ops.kmeans_assign import KMeansAssignment, kmeans_assign
from deepclust_ext.ops.knn import KNN, knn
from deepclust_ext.ops.knn_classify import KNNClassification, knn_classify
from deepclust_ext.ops.mi_loss import iic_loss, mi_loss
from deepclust_ext.ops.pca_whiten import PCAWhitening, pca_whiten

__all__ = [
    "KNN",
    "AffinityGraph",
    "Agglomeration",
    "DHOGLoss",
    "DeepclustWarning",
    "KMeansAssignment",
    "KMeansIteration",
    "KMeansResult",
    "KNNClassification",
    "PCAWhitening",
    "__version__",
    "affinity_graph",
    "agglomerate",
    "augmentation_loss",
    "bank_entropy",
    "bank_nll",
    "bank_nll_entropy",
    "bank_update_",
    "build_info",
    "cut",
    "dhog_loss",
    "dim_jsd_loss",
    "gmm_kl_loss",
    "iic_loss",
    "initial_clusters",
    "jule_loss",
    "kmeans",
    "kmeans_assign",
    "knn",
    "knn_classify",
    "mi_loss",
    "pca_whiten",
]
