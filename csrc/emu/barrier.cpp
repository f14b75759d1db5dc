#include "barrier.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <tuple>

#include "block.h"

namespace deepclust::emu {
namespace {

struct Deletion {
  std::string file;
  unsigned line = 0;
  long long hits = 0;
  bool active = false;
};
Deletion deletion;

std::vector<BarrierSite*>& registry() {
  static std::vector<BarrierSite*> sites;  // made before the first site, wherever that stands
  return sites;
}

std::string normal_path(const char* file) {
  return std::filesystem::path(file).lexically_normal().generic_string();
}

bool is_deleted(const BarrierSite& site) {
  if (!deletion.active || site.line != deletion.line) return false;
  const std::string path = normal_path(site.file);
  if (!path.ends_with(deletion.file)) return false;
  // Whole parts of the path: joint_kernel.cuh is not kernel.cuh.
  return path.size() == deletion.file.size() || path[path.size() - deletion.file.size() - 1] == '/';
}

void meet(const BarrierSite& site, bool predicate) {
  Block& block = running_block();
  block.self().barrier = &site;
  block.vote(predicate);
  block.wait(State::kAtBarrier);
}

}  // namespace

ListedBarrier::ListedBarrier(const char* name_, const char* file_, unsigned line_) : BarrierSite{name_, file_, line_} {
  deleted = is_deleted(*this);
  registry().push_back(this);
}

void sync_threads(const BarrierSite& site) {
  if (site.deleted) {
    ++deletion.hits;
    return;
  }
  meet(site, false);
}

void sync_warp(unsigned mask, const BarrierSite& site, const std::source_location& where) {
  if (site.deleted) {
    ++deletion.hits;
    return;
  }
  WarpCall call;
  call.function = site.name;
  call.mask = mask;
  call.where = where;
  warp_call(call);
}

int sync_threads_count(bool predicate, const char* name, const std::source_location& where) {
  // Not in the list: its value is used, so there is nothing to delete.
  using Key = std::tuple<std::string, unsigned, unsigned>;
  static std::map<Key, BarrierSite> sites;
  const Key key{where.file_name(), where.line(), where.column()};
  const auto found = sites.try_emplace(key, BarrierSite{name, where.file_name(), where.line()}).first;
  meet(found->second, predicate);
  return running_block().opened_votes();
}

void set_deleted_barrier(const std::string& file, unsigned line) {
  deletion = {file, line, 0, true};
  for (BarrierSite* site : registry()) site->deleted = is_deleted(*site);
}

void clear_deleted_barrier() {
  deletion = {};
  for (BarrierSite* site : registry()) site->deleted = false;
}

long long deleted_barrier_hits() {
  return deletion.hits;
}

std::vector<BarrierPlace> barrier_sites() {
  std::vector<BarrierPlace> places;
  for (const BarrierSite* site : registry()) places.push_back({site->name, normal_path(site->file), site->line});
  const auto key = [](const BarrierPlace& p) { return std::tie(p.file, p.line, p.name); };
  std::sort(places.begin(), places.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  const auto end =
      std::unique(places.begin(), places.end(), [&](const auto& a, const auto& b) { return key(a) == key(b); });
  places.erase(end, places.end());
  return places;
}

std::string place(const char* file, unsigned line) {
  return normal_path(file) + ":" + std::to_string(line);
}

}  // namespace deepclust::emu
