#include "distributed/device_choice.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "core/base/error.h"
#include "distributed/communicator_mpi.h"
#include "distributed/launch.h"

namespace cohort::distributed {
namespace {

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

/// Host and UUIDs of every rank, in order: a line each.
std::vector<RankGpus> gather(const std::vector<VisibleGpu>& own) {
  std::string text = host_name();
  for (const VisibleGpu& gpu : own) text += "\n" + gpu.uuid;
  std::vector<std::string> texts{text};
  if (world_size() > 1) {
    MPI_Comm comm = MPI_COMM_NULL;
    const int code = MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    COHORT_CHECK(code == MPI_SUCCESS, "MPI_Comm_dup failed with code {}", code);
    texts = mpi_communicator(comm, "world")->all_gather_text(text);
  }
  std::vector<RankGpus> ranks;
  for (const std::string& of_rank : texts) {
    std::istringstream lines(of_rank);
    RankGpus gpus;
    std::getline(lines, gpus.host);
    for (std::string uuid; std::getline(lines, uuid);) gpus.uuids.push_back(uuid);
    ranks.push_back(std::move(gpus));
  }
  return ranks;
}

[[noreturn]] void refuse(const std::vector<RankGpus>& ranks,
                         size_t rank,
                         const std::map<std::string, size_t>& owners,
                         const std::string& wanted) {
  const RankGpus& own = ranks[rank];
  const std::string who =
      ranks.size() == 1 ? "host " + own.host : fmt::format("rank {} on host {}", rank, own.host);
  COHORT_CHECK_INPUT(!own.uuids.empty(),
                     "run.device={}: {} sees no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES "
                     "there, or use run.device=cpu",
                     wanted,
                     who);
  int ranks_there = 0;
  std::set<std::string> gpus_there;
  for (const RankGpus& other : ranks) {
    if (other.host != own.host) continue;
    ++ranks_there;
    gpus_there.insert(other.uuids.begin(), other.uuids.end());
  }
  const size_t owner = owners.at(own.uuids.front());
  throw InputError(fmt::format(
      "run.device={}: {} would share {} with rank {}{}, but NCCL wants one rank a GPU: {} ranks "
      "on {} see {} GPU{}; start at most as many ranks there as GPUs (mpirun --map-by ppr:{}:node) "
      "and give each another one, or use run.device=cpu",
      wanted,
      who,
      own.uuids.front(),
      owner,
      ranks[owner].host == own.host ? std::string() : " on host " + ranks[owner].host,
      ranks_there,
      own.host,
      gpus_there.size(),
      gpus_there.size() == 1 ? "" : "s",
      gpus_there.size()));
}

}  // namespace

std::vector<int> assign_gpus(const std::vector<RankGpus>& ranks, const std::string& wanted) {
  std::map<std::string, size_t> owners;  // By UUID: two names of one machine do not hide a GPU.
  std::vector<int> chosen;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto& uuids = ranks[rank].uuids;
    const auto free = std::find_if(
        uuids.begin(), uuids.end(), [&](const std::string& uuid) { return !owners.count(uuid); });
    if (free == uuids.end()) refuse(ranks, rank, owners, wanted);
    owners[*free] = rank;
    chosen.push_back(static_cast<int>(free - uuids.begin()));
  }
  return chosen;
}

std::string gpu_uuid_text(const unsigned char* bytes) {
  std::string text = "GPU";
  for (int i = 0; i < 16; ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", bytes[i]);
  }
  return text;
}

#ifndef COHORT_GPU
std::vector<VisibleGpu> visible_gpus() { return {}; }
void use_gpu(int) {}
#endif

at::Device choose_device(const std::string& wanted,
                         const std::function<std::vector<VisibleGpu>()>& visible) {
  if (wanted == "cpu") return at::kCPU;
  const std::vector<RankGpus> ranks = gather(visible());
  const bool any = std::any_of(
      ranks.begin(), ranks.end(), [](const RankGpus& one) { return !one.uuids.empty(); });
  if (wanted == "auto" && !any) return at::kCPU;
  const std::vector<int> gpus = assign_gpus(ranks, wanted);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(gpus[static_cast<size_t>(world_rank())])};
}

namespace {

at::Device& chosen() {
  static at::Device device = at::kCPU;
  return device;
}

}  // namespace

void set_run_device(at::Device device) {
  chosen() = device;
  if (device.is_cuda()) use_gpu(device.index());
}
at::Device run_device() { return chosen(); }

}  // namespace cohort::distributed
