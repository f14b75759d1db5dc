"""Networks: trunks with features at several depths, clustering heads, centroids, the Sobel input layer."""

from deepclust_ext.nn.deepcluster import DeepClusterNet, build_deepcluster_net, check_components
from deepclust_ext.nn.feature_space import FeatureSpace
from deepclust_ext.nn.heads import ClusterNet, ClusterOutput, MLPHead
from deepclust_ext.nn.nearest_centroid import NearestCentroid
from deepclust_ext.nn.plain import PlainTrunk, alexnet_small_trunk, alexnet_trunk, lenet5_trunk
from deepclust_ext.nn.pseudo import PseudoLabelNet, sobel_shape
from deepclust_ext.nn.registry import NETWORKS, build_network, feature_dims
from deepclust_ext.nn.row_trunk import RowTrunk
from deepclust_ext.nn.small import small28_trunk, tiny8_trunk
from deepclust_ext.nn.sobel import Sobel
from deepclust_ext.nn.trunks import BranchedTrunk, resnet18_trunk

__all__ = [
    "NETWORKS",
    "BranchedTrunk",
    "ClusterNet",
    "ClusterOutput",
    "DeepClusterNet",
    "FeatureSpace",
    "MLPHead",
    "NearestCentroid",
    "PlainTrunk",
    "PseudoLabelNet",
    "RowTrunk",
    "Sobel",
    "alexnet_small_trunk",
    "alexnet_trunk",
    "build_deepcluster_net",
    "build_network",
    "check_components",
    "feature_dims",
    "lenet5_trunk",
    "resnet18_trunk",
    "small28_trunk",
    "sobel_shape",
    "tiny8_trunk",
]
