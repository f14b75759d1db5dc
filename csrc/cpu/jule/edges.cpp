#include "edges.h"

#include "../simd/lanes.h"
#include "../simd/level.h"

namespace deepclust::cpu {
namespace {

struct ListedDistances {
  template <typename L, typename T>
  DC_INLINE static void run(const T* z, int64_t d, int64_t anchor, const int32_t* list, int64_t count, T* distance) {
    for (int64_t i = 0; i < count; ++i) distance[list[i]] = squared_distance_of<L>(z + anchor * d, z + list[i] * d, d);
  }
};

struct AddEdges {
  template <typename L, typename T>
  DC_INLINE static void run(const T* z, int64_t d, int64_t anchor, const int32_t* list, const T* weight, int64_t count,
                            T* gradient) {
    using R = Register<L, T>;
    const T* __restrict__ za = z + anchor * d;
    T* __restrict__ ga = gradient + anchor * d;
    for (int64_t i = 0; i < count; ++i) {
      const T* __restrict__ zj = z + list[i] * d;
      T* __restrict__ gj = gradient + list[i] * d;
      const auto w = broadcast<L, T>(weight[i]);
      int64_t t = 0;
      for (; t + R::kLanes <= d; t += R::kLanes) {
        const auto pull = w * (load<L, T>(za + t) - load<L, T>(zj + t));
        store<L, T>(ga + t, load<L, T>(ga + t) + pull);
        store<L, T>(gj + t, load<L, T>(gj + t) - pull);
      }
      for (; t < d; ++t) {
        const T pull = weight[i] * (za[t] - zj[t]);
        ga[t] += pull;
        gj[t] -= pull;
      }
    }
  }
};

}  // namespace

template <typename T>
void listed_distances(const T* z, int64_t d, int64_t anchor, const int32_t* list, int64_t count, T* distance) {
  dispatch<ListedDistances>(z, d, anchor, list, count, distance);
}
template <typename T>
void add_edges(const T* z, int64_t d, int64_t anchor, const int32_t* list, const T* weight, int64_t count,
               T* gradient) {
  dispatch<AddEdges>(z, d, anchor, list, weight, count, gradient);
}

template void listed_distances(const float*, int64_t, int64_t, const int32_t*, int64_t, float*);
template void listed_distances(const double*, int64_t, int64_t, const int32_t*, int64_t, double*);
template void add_edges(const float*, int64_t, int64_t, const int32_t*, const float*, int64_t, float*);
template void add_edges(const double*, int64_t, int64_t, const int32_t*, const double*, int64_t, double*);

}  // namespace deepclust::cpu
