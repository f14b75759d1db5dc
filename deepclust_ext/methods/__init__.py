"""Methods of deep clustering as scikit-learn-style estimators of images."""

from __future__ import annotations

from deepclust_ext.methods.base import Method
from deepclust_ext.methods.configs import load_config
from deepclust_ext.methods.deepcluster import DeepCluster
from deepclust_ext.methods.dhog import DHOG
from deepclust_ext.methods.jule import JULE
from deepclust_ext.methods.pixels import PixelAffinity, PixelKMeans
from deepclust_ext.methods.registry import METHODS
from deepclust_ext.methods.super_and import SuperAND
from deepclust_ext.methods.vcami import VCAMI

__all__ = [
    "DHOG",
    "JULE",
    "METHODS",
    "VCAMI",
    "DeepCluster",
    "Method",
    "PixelAffinity",
    "PixelKMeans",
    "SuperAND",
    "load_config",
]
