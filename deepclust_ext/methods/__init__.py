"""Methods of deep clustering as scikit-learn-style estimators of images and embeddings."""

from __future__ import annotations

from deepclust_ext.methods.affinity import Affinity
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.configs import load_config
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.dhog import DHOG
from deepclust_ext.methods.estimator import Estimator
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.methods.jule import JULE
from deepclust_ext.methods.kmeans import KMeans
from deepclust_ext.methods.registry import METHODS
from deepclust_ext.methods.super_and import SuperAND
from deepclust_ext.methods.vcami import VCAMI

__all__ = [
    "DHOG",
    "JULE",
    "METHODS",
    "VCAMI",
    "Affinity",
    "Clusterer",
    "DeepCluster",
    "Estimator",
    "KMeans",
    "Method",
    "SuperAND",
    "load_config",
]
