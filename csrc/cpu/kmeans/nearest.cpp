// The search: candidates by their brackets, and the distances of what is in doubt.
#include "nearest.h"

#include "candidates.h"

namespace deepclust::cpu {
namespace {

struct AssignPoints {
  template <typename L, typename T>
  static DC_INLINE void run(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                            int64_t* labels) {
    std::vector<Candidate> found;
    found.reserve(static_cast<size_t>(4 * kSearchRows));
    float limit[kSearchRows];
    candidates<L>(points, coded, begin, end, static_cast<const T*>(nullptr), found, limit);
    const double wrong = 2.2 * distance_error<T>(points.d);
    const auto exact = [&](const Candidate& c) DC_INLINE_LAMBDA {
      return squared_distance_of<L>(points.x + (begin + c.row) * points.d, coded.centroids + c.centroid * points.d,
                                    points.d);
    };
    int32_t count[kSearchRows] = {};
    const Candidate* likely[kSearchRows];
    // Limits fall from block to block, so that early candidates may be out by now.
    for (const Candidate& c : found) {
      if (c.low > limit[c.row]) continue;
      labels[c.row] = c.centroid;
      if (count[c.row]++ == 0 || c.low < likely[c.row]->low) likely[c.row] = &c;
    }
    // The likeliest candidate's distance first: most of the others are out then.
    T best[kSearchRows], first[kSearchRows];
    for (int64_t i = 0; i < end - begin; ++i) {
      best[i] = T(-1);
      if (count[i] < 2) continue;
      first[i] = exact(*likely[i]);
      limit[i] = std::min(limit[i], limit_of(points.bounds[begin + i], wrong, first[i]));
    }
    for (const Candidate& c : found) {
      if (count[c.row] < 2 || c.low > limit[c.row]) continue;
      const T distance = &c == likely[c.row] ? first[c.row] : exact(c);
      // Candidates come in the order of centroids, so that a tie stays with the lowest.
      if (best[c.row] == T(-1) || distance < best[c.row]) {
        best[c.row] = distance;
        labels[c.row] = c.centroid;
      }
    }
  }
};

struct LowerDistances {
  template <typename L, typename T>
  static DC_INLINE void run(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                            T* distance) {
    std::vector<Candidate> found;
    found.reserve(static_cast<size_t>(4 * kSearchRows));
    float limit[kSearchRows];
    candidates<L>(points, coded, begin, end, static_cast<const T*>(distance), found, limit);
    const double wrong = 2.2 * distance_error<T>(points.d);
    for (const Candidate& c : found) {
      if (c.low > limit[c.row]) continue;
      const T found_distance = squared_distance_of<L>(points.x + (begin + c.row) * points.d,
                                                      coded.centroids + c.centroid * points.d, points.d);
      if (!(found_distance < distance[c.row])) continue;
      distance[c.row] = found_distance;
      limit[c.row] = std::min(limit[c.row], limit_of(points.bounds[begin + c.row], wrong, found_distance));
    }
  }
};

struct LabelDistances {
  template <typename L, typename T>
  static DC_INLINE double run(const T* x, const T* centroids, int64_t d, const int64_t* labels, int64_t begin,
                              int64_t end, T* distance) {
    double sum = 0.0;
    for (int64_t i = begin; i < end; ++i) {
      distance[i - begin] = squared_distance_of<L>(x + i * d, centroids + labels[i - begin] * d, d);
      sum += static_cast<double>(distance[i - begin]);
    }
    return sum;
  }
};

struct SquaredDistance {
  template <typename L, typename T>
  static DC_INLINE T run(const T* x, const T* c, int64_t d) {
    return squared_distance_of<L>(x, c, d);
  }
};

}  // namespace

template <typename T>
T squared_distance(const T* x, const T* c, int64_t d) {
  return dispatch<SquaredDistance>(x, c, d);
}
template <typename T>
void assign_points(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                   int64_t* labels) {
  dispatch<AssignPoints>(points, coded, begin, end, labels);
}
template <typename T>
void lower_distances(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end, T* distance) {
  dispatch<LowerDistances>(points, coded, begin, end, distance);
}
template <typename T>
double label_distances(const T* x, const T* centroids, int64_t d, const int64_t* labels, int64_t begin, int64_t end,
                       T* distance) {
  return dispatch<LabelDistances>(x, centroids, d, labels, begin, end, distance);
}

template float squared_distance(const float*, const float*, int64_t);
template double squared_distance(const double*, const double*, int64_t);
template void assign_points(const Points<float>&, const CodedCentroids<float>&, int64_t, int64_t, int64_t*);
template void assign_points(const Points<double>&, const CodedCentroids<double>&, int64_t, int64_t, int64_t*);
template void lower_distances(const Points<float>&, const CodedCentroids<float>&, int64_t, int64_t, float*);
template void lower_distances(const Points<double>&, const CodedCentroids<double>&, int64_t, int64_t, double*);
template double label_distances(const float*, const float*, int64_t, const int64_t*, int64_t, int64_t, float*);
template double label_distances(const double*, const double*, int64_t, const int64_t*, int64_t, int64_t, double*);

}  // namespace deepclust::cpu
