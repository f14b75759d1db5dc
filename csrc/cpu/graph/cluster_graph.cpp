#include "cluster_graph.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace deepclust::cpu {

ClusterGraph::ClusterGraph(const KnnGraph& graph, const int64_t* labels, int64_t m, Update update)
    : update_(update),
      first_(labels, labels + graph.n),
      joined_(static_cast<std::size_t>(m)),
      sizes_(static_cast<std::size_t>(m)),
      supports_(static_cast<std::size_t>(m)),
      neighbours_(static_cast<std::size_t>(m)),
      exchange_(static_cast<std::size_t>(m)) {
  const int bits = weight_bits(graph.n, graph.k);
  unit_ = std::ldexp(1.0, -2 * bits);
  std::iota(joined_.begin(), joined_.end(), 0);
  for (const int32_t cluster : first_) ++sizes_[cluster];
  add_links(graph, bits);

  // U by rows, then by columns as well: an affinity needs both ways, of which one may be 0.
  struct Entry {
    Wide value;
    int32_t cluster;
  };
  std::vector<std::vector<Entry>> rows(static_cast<std::size_t>(m)), columns(static_cast<size_t>(m));
  for (int32_t a = 0; a < m; ++a) {
    supports_[a].each([&](int32_t vertex, const Link& link) {
      if (link.in != 0 && link.out != 0) touch(first_[vertex]).given += Wide{link.in} * link.out;
    });
    for (const int32_t c : touched_) {
      const Wide given = update_ == Update::slide ? exchange_[c].given / sizes_[a] : exchange_[c].given;
      rows[a].push_back({given, c});
      columns[c].push_back({given, a});
    }
    forget_touched();
    if (update_ != Update::exact) supports_[a].release();
  }
  for (int32_t a = 0; a < m; ++a) {
    for (const Entry& entry : rows[a]) touch(entry.cluster).given = entry.value;
    for (const Entry& entry : columns[a]) touch(entry.cluster).received = entry.value;
    neighbours_[a].reserve(touched_.size());
    for (const int32_t c : touched_) neighbours_[a].push_back({exchange_[c].given, affinity(a, c), c});
    forget_touched();
    std::vector<Entry>().swap(rows[a]);
    std::vector<Entry>().swap(columns[a]);
  }
}

void ClusterGraph::add_links(const KnnGraph& graph, int bits) {
  for (int64_t i = 0; i < graph.n; ++i)
    for (int64_t e = i * graph.k; e < (i + 1) * graph.k; ++e) {
      const int64_t j = graph.indices[e];
      const int64_t weight = fixed_weight(graph.weights[e], bits);
      if (weight == 0 || first_[i] == first_[j]) continue;
      supports_[first_[j]].at(static_cast<int32_t>(i)).out += weight;
      supports_[first_[i]].at(static_cast<int32_t>(j)).in += weight;
    }
}

void ClusterGraph::merge(int32_t a, int32_t b) {
  forget_touched();
  for (const int32_t from : {a, b})
    for (const Neighbour& neighbour : neighbours_[from])
      if (neighbour.cluster != a && neighbour.cluster != b) touch(neighbour.cluster).given += neighbour.given;
  if (update_ == Update::exact) join_supports(a, b);
  joined_[b] = a;
  sizes_[a] += sizes_[b];
  std::vector<Neighbour>().swap(neighbours_[b]);
  neighbours_[a].clear();
  for (const int32_t c : touched_) {
    std::vector<Neighbour>& theirs = neighbours_[c];
    Exchange& exchange = exchange_[c];
    for (std::size_t i = 0; i < theirs.size();) {
      if (theirs[i].cluster == a || theirs[i].cluster == b) {
        exchange.received += theirs[i].given;
        theirs[i] = theirs.back();
        theirs.pop_back();
      } else {
        ++i;
      }
    }
    const double value = affinity(a, c);
    neighbours_[a].push_back({exchange.given, value, c});
    theirs.push_back({exchange.received, value, a});
  }
}

// Adds the cross terms to U[a + b, c], and makes one table of the two.
void ClusterGraph::join_supports(int32_t a, int32_t b) {
  if (supports_[a].count() < supports_[b].count()) std::swap(supports_[a], supports_[b]);
  supports_[b].each([&](int32_t vertex, const Link& link) {
    const int32_t c = cluster_of(vertex);
    if (c == a || c == b) return;  // within the merged cluster from now on
    Link& other = supports_[a].at(vertex);
    const Wide cross = Wide{other.in} * link.out + Wide{link.in} * other.out;
    if (cross != 0) touch(c).given += cross;
    other.in += link.in;
    other.out += link.out;
  });
  supports_[b].release();
}

int32_t ClusterGraph::cluster_of(int32_t vertex) {
  int32_t cluster = first_[vertex];
  while (joined_[cluster] != cluster) cluster = joined_[cluster] = joined_[joined_[cluster]];
  return cluster;
}

ClusterGraph::Exchange& ClusterGraph::touch(int32_t cluster) {
  Exchange& exchange = exchange_[cluster];
  if (!exchange.touched) {
    exchange.touched = true;
    touched_.push_back(cluster);
  }
  return exchange;
}

void ClusterGraph::forget_touched() {
  for (const int32_t cluster : touched_) exchange_[cluster] = {};
  touched_.clear();
}

double ClusterGraph::affinity(int32_t a, int32_t c) const {
  return share(exchange_[c].given, sizes_[a]) + share(exchange_[c].received, sizes_[c]);
}

double ClusterGraph::share(Wide given, int64_t size) const {
  const double divisor = static_cast<double>(update_ == Update::slide ? size : size * size);
  return static_cast<double>(given) * unit_ / divisor;
}

std::vector<int32_t> ClusterGraph::labels() {
  std::vector<int32_t> labels(first_.size());
  for (std::size_t i = 0; i < labels.size(); ++i) labels[i] = cluster_of(static_cast<int32_t>(i));
  return labels;
}

}  // namespace deepclust::cpu
