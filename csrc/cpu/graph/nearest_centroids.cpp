#include "nearest_centroids.h"

#include <algorithm>
#include <limits>

#include "../simd/lanes.h"

namespace deepclust::cpu {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// Squared distances of a row to chosen rows [.., d].
struct CentroidDistances {
  template <typename L>
  static DC_INLINE void run(const double* row, const double* rows, const int64_t* row_of, const int32_t* chosen,
                            int64_t count, int64_t d, double* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = squared_distance_of<L>(row, rows + row_of[chosen[i]] * d, d);
  }
};

}  // namespace

template <typename T>
NearestCentroids::NearestCentroids(const T* x, const int32_t* clusters, int64_t n, int64_t d, int64_t m)
    : d_(d),
      rows_(static_cast<std::size_t>(m), -1),
      sizes_(static_cast<std::size_t>(m)),
      nearest_(static_cast<std::size_t>(m), -1),
      stale_(static_cast<std::size_t>(m)),
      least_(m, -kNever) {
  for (int64_t i = 0; i < n; ++i) ++sizes_[clusters[i]];
  for (int32_t c = 0; c < m; ++c)
    if (sizes_[c] > 0) {
      rows_[c] = static_cast<int64_t>(alive_.size());
      alive_.push_back(c);
    }
  sums_.resize(alive_.size() * static_cast<std::size_t>(d));
  centroids_.resize(sums_.size());
  distances_.resize(alive_.size());
  for (int64_t i = 0; i < n; ++i) {
    double* const row = sum(clusters[i]);
    for (int64_t j = 0; j < d; ++j) row[j] += static_cast<double>(x[i * d + j]);
  }
  for (const int32_t c : alive_) divide(c);
  for (const int32_t c : alive_) search(c);
}

template NearestCentroids::NearestCentroids(const float*, const int32_t*, int64_t, int64_t, int64_t);
template NearestCentroids::NearestCentroids(const double*, const int32_t*, int64_t, int64_t, int64_t);

std::pair<int32_t, int32_t> NearestCentroids::nearest_pair() {
  while (stale_[least_.best()]) search(least_.best());
  return {least_.best(), nearest_[least_.best()]};
}

void NearestCentroids::merge(int32_t a, int32_t b) {
  for (int64_t j = 0; j < d_; ++j) sum(a)[j] += sum(b)[j];
  sizes_[a] += sizes_[b];
  divide(a);
  alive_.erase(std::lower_bound(alive_.begin(), alive_.end(), b));
  note(b, kNever, -1);
  search(a);
  const auto below = std::lower_bound(alive_.begin(), alive_.end(), a) - alive_.begin();
  dispatch<CentroidDistances>(centroid(a), centroids_.data(), rows_.data(), alive_.data(), below, d_,
                              distances_.data());
  for (std::ptrdiff_t i = 0; i < below; ++i) {
    const int32_t c = alive_[i];
    const double known = -least_.score(c);
    if (distances_[i] < known)
      note(c, distances_[i], a);
    else if (nearest_[c] == a || nearest_[c] == b)
      stale_[c] = 1;
    else if (distances_[i] == known && !stale_[c])
      nearest_[c] = std::min(nearest_[c], a);
  }
  for (auto c = alive_.begin() + below; c != alive_.end() && *c < b; ++c)
    if (nearest_[*c] == b) stale_[*c] = 1;
}

// The nearest of a higher index, by the definition.
void NearestCentroids::search(int32_t cluster) {
  const auto begin = std::upper_bound(alive_.begin(), alive_.end(), cluster);
  const int64_t count = alive_.end() - begin;
  const int32_t* const chosen = alive_.data() + (begin - alive_.begin());
  dispatch<CentroidDistances>(centroid(cluster), centroids_.data(), rows_.data(), chosen, count, d_, distances_.data());
  const auto least = std::min_element(distances_.begin(), distances_.begin() + count);  // the first of equal ones
  if (count == 0)
    note(cluster, kNever, -1);
  else
    note(cluster, *least, chosen[least - distances_.begin()]);
}

void NearestCentroids::divide(int32_t cluster) {
  double* const out = centroids_.data() + rows_[cluster] * d_;
  for (int64_t j = 0; j < d_; ++j) out[j] = sum(cluster)[j] / sizes_[cluster];
}

void NearestCentroids::note(int32_t cluster, double distance, int32_t nearest) {
  nearest_[cluster] = nearest;
  stale_[cluster] = 0;
  least_.set(cluster, -distance);
}

}  // namespace deepclust::cpu
