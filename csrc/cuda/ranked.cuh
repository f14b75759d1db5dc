// Neighbours in their total order: the lower cost first, then the lower index. No two are equal, so whatever keeps or
// sorts them has one right result, in whatever order it meets them.
//
// Costs are kept as unsigned keys in the same order: a radix selection needs them, and the key above those of all
// numbers marks a place that holds no neighbour yet.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "../common/half.h"
#include "simt.h"

namespace deepclust::cuda {

template <typename T>
struct KeyOf;
template <>
struct KeyOf<float> {
  using type = uint32_t;
};
template <>
struct KeyOf<double> {
  using type = uint64_t;
};
template <typename T>
using key_t = typename KeyOf<T>::type;

template <typename Key>
inline constexpr int kKeyBits = 8 * sizeof(Key);
template <typename Key>
inline constexpr Key kNoKey = static_cast<Key>(~Key(0));
inline constexpr uint32_t kNoIndex = 0xffffffffu;

// The key of a squared distance, or of minus a similarity. NaN, the difference of two infinities, counts as the worst.
template <typename T>
DC_DEVICE key_t<T> key_of(T cost) {
  using Key = key_t<T>;
  constexpr Key kSign = Key(1) << (kKeyBits<Key> - 1);
  // -0 + 0 is +0: both zeros are one value.
  const T ordered = cost == cost ? cost + T(0) : std::numeric_limits<T>::infinity();
  Key bits;
  memcpy(&bits, &ordered, sizeof(bits));
  return bits & kSign ? ~bits : bits | kSign;
}

template <typename T>
DC_DEVICE T cost_of(key_t<T> key) {
  using Key = key_t<T>;
  constexpr Key kSign = Key(1) << (kKeyBits<Key> - 1);
  const Key bits = key & kSign ? key ^ kSign : ~key;
  T cost;
  memcpy(&cost, &bits, sizeof(cost));
  return cost;
}

template <typename Key>
struct Ranked {
  Key key;
  uint32_t index;

  DC_DEVICE bool before(const Ranked& other) const {
    return (key < other.key) | ((key == other.key) & (index < other.index));  // without a branch
  }
  DC_DEVICE static Ranked none() { return {kNoKey<Key>, kNoIndex}; }
};

// Neighbours as two arrays: 8 and 4 bytes side by side would leave holes.
template <typename Key>
struct RankedList {
  Key* keys;
  uint32_t* indices;

  DC_DEVICE Ranked<Key> at(int64_t e) const { return {keys[e], indices[e]}; }
  DC_DEVICE void set(int64_t e, const Ranked<Key>& item) const {
    keys[e] = item.key;
    indices[e] = item.index;
  }
  DC_DEVICE RankedList from(int64_t e) const { return {keys + e, indices + e}; }
  // How many of the first `count`, which are sorted, come before `item`.
  DC_DEVICE int64_t count_before(int64_t count, const Ranked<Key>& item) const {
    int64_t low = 0, high = count;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (at(middle).before(item))
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
};

// Where results go: values and indices of the rows, [rows, k].
template <typename T>
struct Neighbours {
  T* values;
  int64_t* indices;
  bool squared;  // costs are squared distances, else minus similarities

  DC_DEVICE void set(int64_t e, const Ranked<key_t<T>>& item) const {
    const T cost = cost_of<T>(item.key);
    values[e] = squared ? cost : T(0) - cost;  // 0 - 0 is +0, and -0 is not
    indices[e] = static_cast<int64_t>(item.index);
  }
};

}  // namespace deepclust::cuda
