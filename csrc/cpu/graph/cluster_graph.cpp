#include "cluster_graph.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace deepclust::cpu {

void Neighbours::add(int32_t cluster, double affinity, Wide gives) {
  clusters.push_back(cluster);
  affinities.push_back(affinity);
  given.push_back(gives);
}

void Neighbours::remove(std::size_t at) {
  clusters[at] = clusters.back();
  affinities[at] = affinities.back();
  given[at] = given.back();
  clusters.pop_back();
  affinities.pop_back();
  given.pop_back();
}

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
  add_links(graph, std::ldexp(1.0, bits));
  find_neighbours();
}

// One cluster's table after another, which stays in the cache while it grows.
void ClusterGraph::add_links(const KnnGraph& graph, double unit) {
  struct Edge {
    int64_t weight;
    int32_t vertex;
  };
  const int64_t edges = graph.n * graph.k;
  std::vector<int64_t> ends(static_cast<std::size_t>(graph.n + 1));  // of the edges into each vertex, once they are in
  for (int64_t e = 0; e < edges; ++e) ++ends[graph.indices[e] + 1];
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  std::vector<Edge> incoming(static_cast<std::size_t>(edges));
  for (int64_t e = 0; e < edges; ++e)
    incoming[ends[graph.indices[e]]++] = {fixed_weight(graph.weights[e], unit), static_cast<int32_t>(e / graph.k)};

  std::vector<int32_t> order(first_.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) { return first_[i] < first_[j]; });
  for (const int32_t member : order) {
    const int32_t a = first_[member];
    Support& support = supports_[a];
    for (int64_t e = member * graph.k; e < (member + 1) * graph.k; ++e) {
      const auto vertex = static_cast<int32_t>(graph.indices[e]);
      const int64_t weight = fixed_weight(graph.weights[e], unit);
      if (weight != 0 && first_[vertex] != a) support.at(vertex).in += weight;
    }
    for (int64_t e = member == 0 ? 0 : ends[member - 1]; e < ends[member]; ++e)
      if (incoming[e].weight != 0 && first_[incoming[e].vertex] != a)
        support.at(incoming[e].vertex).out += incoming[e].weight;
  }
}

// U by rows, then by columns as well: an affinity needs both ways, of which one may be 0.
void ClusterGraph::find_neighbours() {
  struct Entry {
    Wide value;
    int32_t cluster;
  };
  const auto m = static_cast<int32_t>(sizes_.size());
  std::vector<std::vector<Entry>> rows(sizes_.size()), columns(sizes_.size());
  for (int32_t a = 0; a < m; ++a) {
    supports_[a].each([&](int32_t vertex, const Link& link) {
      if (link.in != 0 && link.out != 0) touch(first_[vertex]).given += Wide{link.in} * link.out;
    });
    for (const Touched& touched : touched_) {
      Wide given = exchange_[touched.cluster].given;
      if (update_ == Update::slide) given /= sizes_[a];
      rows[a].push_back({given, touched.cluster});
      columns[touched.cluster].push_back({given, a});
    }
    forget_touched();
    if (update_ != Update::exact) supports_[a].release();
  }
  for (int32_t a = 0; a < m; ++a) {
    for (const Entry& entry : rows[a]) touch(entry.cluster).given = entry.value;
    for (const Entry& entry : columns[a]) touch(entry.cluster).received = entry.value;
    for (const Touched& touched : touched_)
      neighbours_[a].add(touched.cluster, affinity(a, touched.cluster), exchange_[touched.cluster].given);
    forget_touched();
    std::vector<Entry>().swap(rows[a]);
    std::vector<Entry>().swap(columns[a]);
  }
}

const std::vector<Touched>& ClusterGraph::merge(int32_t a, int32_t b) {
  forget_touched();
  for (const int32_t from : {a, b}) {
    const Neighbours& ours = neighbours_[from];
    for (std::size_t i = 0; i < ours.size(); ++i)
      if (ours.clusters[i] != a && ours.clusters[i] != b) touch(ours.clusters[i]).given += ours.given[i];
  }
  if (update_ == Update::exact) join_supports(a, b);
  joined_[b] = a;
  sizes_[a] += sizes_[b];
  neighbours_[b] = {};
  neighbours_[a] = {};
  for (Touched& touched : touched_) {
    Neighbours& theirs = neighbours_[touched.cluster];
    Exchange& exchange = exchange_[touched.cluster];
    for (std::size_t i = 0; i < theirs.size();) {
      if (theirs.clusters[i] == a || theirs.clusters[i] == b) {
        exchange.received += theirs.given[i];
        touched.highest = std::max(touched.highest, theirs.affinities[i]);
        theirs.remove(i);
      } else {
        ++i;
      }
    }
    const double value = affinity(a, touched.cluster);
    touched.highest = std::max(touched.highest, value);
    neighbours_[a].add(touched.cluster, value, exchange.given);
    theirs.add(a, value, exchange.received);
  }
  return touched_;
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
    touched_.push_back({cluster, 0.0});
  }
  return exchange;
}

void ClusterGraph::forget_touched() {
  for (const Touched& touched : touched_) exchange_[touched.cluster] = {};
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
