"""Evaluation: scores against classes, diagnostics without them, probes of features, a baseline."""

from deepclust_ext.evaluate.baseline import kmeans_pixels
from deepclust_ext.evaluate.cluster_count import Candidate, ClusterCount, count_clusters
from deepclust_ext.evaluate.clusterers import CLUSTERERS, cluster_features, compare_clusterers, transfer
from deepclust_ext.evaluate.diagnostics import Diagnostics, churn, diagnostics, occupancy
from deepclust_ext.evaluate.layer_probes import probe_layers, sgd_probe
from deepclust_ext.evaluate.layers import layer_features, layer_names
from deepclust_ext.evaluate.mapping import apply_mapping, contingency, hungarian_mapping, majority_mapping
from deepclust_ext.evaluate.neighbours import low_dimensional, neighbour_purity, trustworthiness
from deepclust_ext.evaluate.probes import knn_accuracy, linear_probe
from deepclust_ext.evaluate.retrieval import retrieval_figures
from deepclust_ext.evaluate.scores import acc_hungarian, acc_majority, ari, nmi, nmi_views, scores

__all__ = [
    "CLUSTERERS",
    "Candidate",
    "ClusterCount",
    "Diagnostics",
    "acc_hungarian",
    "acc_majority",
    "apply_mapping",
    "ari",
    "churn",
    "cluster_features",
    "compare_clusterers",
    "contingency",
    "count_clusters",
    "diagnostics",
    "hungarian_mapping",
    "kmeans_pixels",
    "knn_accuracy",
    "layer_features",
    "layer_names",
    "linear_probe",
    "low_dimensional",
    "majority_mapping",
    "neighbour_purity",
    "nmi",
    "nmi_views",
    "occupancy",
    "probe_layers",
    "retrieval_figures",
    "scores",
    "sgd_probe",
    "transfer",
    "trustworthiness",
]
