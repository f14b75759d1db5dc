"""Methods of deep clustering as scikit-learn-style estimators of images and embeddings."""

from __future__ import annotations

from deepclust_ext.methods.base import Method
from deepclust_ext.methods.configs import load_config
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.dhog import DHOG
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.methods.kmeans import KMeans
from deepclust_ext.methods.registry import METHODS

__all__ = ["DHOG", "METHODS", "Clusterer", "DeepCluster", "KMeans", "Method", "load_config"]
