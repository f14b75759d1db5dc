"""Every op in plain torch, readable and float64-capable; used by tests and benchmarks only."""

from __future__ import annotations

from deepclust_ext.reference.affinity_graph import affinity_graph, initial_clusters
from deepclust_ext.reference.agglomerate import agglomerate
from deepclust_ext.reference.augmentation_loss import augmentation_loss
from deepclust_ext.reference.bank_nll_entropy import bank_entropy, bank_nll, bank_nll_entropy
from deepclust_ext.reference.bank_update import bank_update_
from deepclust_ext.reference.dhog_loss import dhog_loss
from deepclust_ext.reference.dim_jsd_loss import dim_jsd_loss
from deepclust_ext.reference.gmm_kl_loss import gmm_kl_loss
from deepclust_ext.reference.jule_loss import jule_loss, sample_triplets
from deepclust_ext.reference.kmeans import kmeans, kmeans_assign
from deepclust_ext.reference.knn import knn, knn_classify
from deepclust_ext.reference.mi_loss import mi_loss
from deepclust_ext.reference.pca_whiten import pca_whiten

__all__ = [
    "affinity_graph",
    "agglomerate",
    "augmentation_loss",
    "bank_entropy",
    "bank_nll",
    "bank_nll_entropy",
    "bank_update_",
    "dhog_loss",
    "dim_jsd_loss",
    "gmm_kl_loss",
    "initial_clusters",
    "jule_loss",
    "kmeans",
    "kmeans_assign",
    "knn",
    "knn_classify",
    "mi_loss",
    "pca_whiten",
    "sample_triplets",
]
