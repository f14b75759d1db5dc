// Every op's schema. A change here must be made in python_tests/build/schemas.json too, so that it shows in the diff.
#include "torch/stable.h"

STABLE_TORCH_LIBRARY(deepclust, library) {
  // Minus the mutual information of p^T q [.., C, D], and its gradient with respect to that joint.
  library.def("mi_loss(Tensor p, Tensor q, float lamb, bool symmetric) -> (Tensor loss, Tensor joint_grad)");
  // The gradients of p and q from the forward's joint_grad: two thin products. One not needed comes back empty.
  library.def(
      "mi_loss_backward(Tensor grad_loss, Tensor p, Tensor q, Tensor joint_grad, bool need_p, bool need_q) "
      "-> (Tensor grad_p, Tensor grad_q)");

  // DHOG's whole objective over probs [A, H, n, C], and the weighted gradients of its pull and push joints.
  library.def(
      "dhog_loss(Tensor probs, float alpha, bool pooled, bool push_by_index, float lamb) "
      "-> (Tensor loss, Tensor pull, Tensor push, Tensor pull_grad, Tensor push_grad)");
  // The gradient of probs; pull_grad has one joint a head when pooled, one a pair of views otherwise.
  library.def(
      "dhog_loss_backward(Tensor grad_loss, Tensor probs, Tensor pull_grad, Tensor push_grad, bool pooled) "
      "-> Tensor");

  // JULE's weighted triplet loss of z [B, d], and its gradient [B, d]. The negatives depend on the labels and the seed
  // (one int64, read on the device) alone; common/triplet_rule.h says how they are drawn.
  library.def(
      "jule_loss(Tensor z, Tensor labels, Tensor seed, float gamma, float margin, int n_negatives) "
      "-> (Tensor loss, Tensor z_grad)");

  // Exact Lloyd from `centroids` [.., n_clusters, d], or from k-means++ with `seed` where there are none: at most
  // max_iter updates, then a last assignment. `empty` is 0 (split), 1 (farthest) or 2 (keep). history [.., max_iter, 3]
  // holds objective, share of points moved and imbalance; a matrix that has settled after n_iter updates repeats its
  // last record, with nothing moved. sample_weight [.., n] in float64 is between 0 and 1.
  library.def(
      "kmeans(Tensor x, Tensor? centroids, SymInt n_clusters, int seed, SymInt max_iter, float tol, int empty, "
      "bool spherical, Tensor? sample_weight=None) -> (Tensor centroids, Tensor labels, Tensor inertia, Tensor n_iter, "
      "Tensor history, "
      "Tensor n_empty)");
  // The lowest nearest centroid of every point, and its squared distance.
  library.def("kmeans_assign(Tensor x, Tensor centroids) -> (Tensor labels, Tensor squared_distances)");
  // The indices [.., n_clusters] of the points that k-means++ draws as starting centroids; weights as of kmeans.
  library.def("kmeans_plusplus(Tensor x, SymInt n_clusters, int seed, Tensor? sample_weight=None) -> Tensor");
  // The k nearest points of x [.., n, d] to each query [.., q, d], or to each other: squared distances ("euclidean") or
  // similarities ("cosine", "inner"), and indices, [.., q or n, k].
  library.def("knn(Tensor x, Tensor? query, SymInt k, str metric) -> (Tensor values, Tensor indices)");

  // Loss and entropy of softmax(v bank^T / temperature) over the bank's rows, in one pass, with the gradients of v [B,
  // d] where asked: nll is -log of the probability of the rows at index [B] and neighbors [B, m] (-1: none), the
  // entropy leaves out the row at index (-1: none, where no nll is asked for). What is not asked for comes back empty.
  library.def(
      "bank_nll_entropy(Tensor v, Tensor bank, Tensor index, Tensor neighbors, float temperature, bool nll, "
      "bool entropy, bool gradient) -> (Tensor nll, Tensor entropy, Tensor nll_grad, Tensor entropy_grad)");
  // The rows at index become momentum row + (1 - momentum) feature, L2-normalised, one after another.
  library.def("bank_update_(Tensor(a!) bank, Tensor index, Tensor features, float momentum) -> ()");
  // exp(-d / sigma2) of squared distances [n, k], and sigma2 = a * their mean, summed in index order; all-zero
  // distances give sigma2 0 and weights 1.
  library.def("affinity_weights(Tensor squared_distances, float a) -> (Tensor weights, Tensor sigma2)");
  // Weakly connected components of the graph of first neighbours, indices [n, k] (column 0 is used), numbered by first
  // member.
  library.def("initial_clusters(Tensor indices) -> Tensor");
  // Greedy merging of the clusters `labels` [n] of a graph [n, k] until n_clusters are left; `update` is 0 (exact), 1
  // (slide) or 2 (sum), and x [n, d] is for clusters without an affinity, which stay where there is none. children
  // [n_initial - 1, 2] and affinities [n_initial - 1] hold n_merges merges.
  library.def(
      "agglomerate(Tensor indices, Tensor weights, Tensor labels, SymInt n_initial, SymInt n_clusters, int kc, "
      "float lam, int update, Tensor? x) -> (Tensor children, Tensor affinities, Tensor n_merges)");

  // a^T b of matrices [k, m] and [k, n], summed in index order for any number of threads. Not public.
  library.def("ordered_product(Tensor a, Tensor b) -> Tensor");
}
