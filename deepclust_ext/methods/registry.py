"""The methods by the name that the command line and configurations know them by."""

from __future__ import annotations

from deepclust_ext.methods.base import Method
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.dhog import DHOG
from deepclust_ext.methods.pixels import PixelAffinity, PixelKMeans

METHODS: dict[str, type[Method]] = {
    "affinity": PixelAffinity,
    "deepcluster": DeepCluster,
    "dhog": DHOG,
    "kmeans": PixelKMeans,
}
