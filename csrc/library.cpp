// Every op's schema. A change here must be made in python_tests/schemas.json too, so that it shows in the diff.
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

  // The k nearest points of x [.., n, d] to each query [.., q, d], or to each other: squared distances ("euclidean") or
  // similarities ("cosine", "inner"), and indices, [.., q or n, k].
  library.def("knn(Tensor x, Tensor? query, SymInt k, str metric) -> (Tensor values, Tensor indices)");
}
