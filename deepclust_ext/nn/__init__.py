"""Networks: trunks with features at several depths, clustering heads, centroids, Sobel edges, the memory bank."""

from deepclust_ext.nn.deepcluster import DeepClusterNet, build_deepcluster_net, check_components
from deepclust_ext.nn.embedding import EmbeddingNet, build_embedding_net
from deepclust_ext.nn.feature_space import FeatureSpace
from deepclust_ext.nn.heads import ClusterNet, ClusterOutput, MLPHead
from deepclust_ext.nn.jule import JULENet, build_jule_net
from deepclust_ext.nn.jule_trunk import jule_layers, jule_trunk
from deepclust_ext.nn.memory_bank import MemoryBank
from deepclust_ext.nn.nearest_centroid import NearestCentroid
from deepclust_ext.nn.plain import PlainTrunk, alexnet_small_trunk, alexnet_trunk, lenet5_trunk
from deepclust_ext.nn.pseudo import PseudoLabelNet, sobel_shape
from deepclust_ext.nn.registry import NETWORKS, build_network, feature_dims
from deepclust_ext.nn.row_trunk import RowTrunk
from deepclust_ext.nn.separate import SeparateTrunks
from deepclust_ext.nn.small import small28_trunk, tiny8_trunk
from deepclust_ext.nn.sobel import Sobel
from deepclust_ext.nn.trunks import BranchedTrunk, resnet18_trunk, resnet101_trunk
from deepclust_ext.nn.vcami import VCAMINet, build_vcami_net

__all__ = [
    "NETWORKS",
    "BranchedTrunk",
    "ClusterNet",
    "ClusterOutput",
    "DeepClusterNet",
    "EmbeddingNet",
    "FeatureSpace",
    "JULENet",
    "MLPHead",
    "MemoryBank",
    "NearestCentroid",
    "PlainTrunk",
    "PseudoLabelNet",
    "RowTrunk",
    "SeparateTrunks",
    "Sobel",
    "VCAMINet",
    "alexnet_small_trunk",
    "alexnet_trunk",
    "build_deepcluster_net",
    "build_embedding_net",
    "build_jule_net",
    "build_network",
    "build_vcami_net",
    "check_components",
    "feature_dims",
    "jule_layers",
    "jule_trunk",
    "lenet5_trunk",
    "resnet18_trunk",
    "resnet101_trunk",
    "small28_trunk",
    "sobel_shape",
    "tiny8_trunk",
]
