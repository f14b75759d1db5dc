"""The methods by the name that the command line and configurations know them by."""

from __future__ import annotations

from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.dhog import DHOG
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.methods.kmeans import KMeans

METHODS: dict[str, type[Clusterer]] = {"deepcluster": DeepCluster, "dhog": DHOG, "kmeans": KMeans}
