"""Clustering of rows of features as scikit-learn estimators; needs scikit-learn, which the package alone does not."""

from __future__ import annotations

from deepclust_ext.cluster.affinity_clustering import AffinityClustering
from deepclust_ext.cluster.kmeans import KMeans

__all__ = ["AffinityClustering", "KMeans"]
