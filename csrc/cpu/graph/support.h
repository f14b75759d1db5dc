// One cluster's edges by the vertex outside of it: how much weight comes in from the cluster, and goes out to it.
//
// An open-addressing table that grows to at most 3/4 full and never shrinks. Vertices that have become members stay in
// it until it grows: whoever reads it skips them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deepclust::cpu {

// Weights are whole multiples of 2^-bits (fixed_weights.h).
struct Link {
  int64_t in = 0;   // from members to the vertex
  int64_t out = 0;  // from the vertex to members
};

class Support {
 public:
  struct Slot {
    Link link;
    int32_t vertex = kFree;
  };

  int64_t count() const { return count_; }

  // The vertex's link, or null.
  Link* find(int32_t vertex) {
    if (slots_.empty()) return nullptr;
    Slot& slot = slots_[place(vertex)];
    return slot.vertex == vertex ? &slot.link : nullptr;
  }

  // The vertex's link, a new one of zeros where there was none. It stays where it is until the next call.
  Link& at(int32_t vertex) {
    if (4 * (count_ + 1) > 3 * static_cast<int64_t>(slots_.size())) grow();
    Slot& slot = slots_[place(vertex)];
    if (slot.vertex == kFree) {
      slot.vertex = vertex;
      ++count_;
    }
    return slot.link;
  }

  // f(vertex, link) for each, in an order that depends on the table: fit for sums of whole numbers.
  template <typename F>
  void each(const F& f) const {
    for (const Slot& slot : slots_)
      if (slot.vertex != kFree) f(slot.vertex, slot.link);
  }

  void release() {
    std::vector<Slot>().swap(slots_);
    count_ = 0;
  }

 private:
  static constexpr int32_t kFree = -1;

  std::size_t place(int32_t vertex) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = (static_cast<uint64_t>(static_cast<uint32_t>(vertex)) * 0x9E3779B97F4A7C15u >> 32) & mask;
    while (slots_[at].vertex != kFree && slots_[at].vertex != vertex) at = (at + 1) & mask;
    return at;
  }

  void grow() {
    std::vector<Slot> before(slots_.empty() ? 4 : 2 * slots_.size());
    before.swap(slots_);
    for (const Slot& slot : before)
      if (slot.vertex != kFree) slots_[place(slot.vertex)] = slot;
  }

  std::vector<Slot> slots_;
  int64_t count_ = 0;
};

}  // namespace deepclust::cpu
