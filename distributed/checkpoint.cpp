// How a checkpoint comes to be, and why a process that is killed at any moment leaves either the
// set of checkpoints as it was or that set with the new one in it.
//
//   each rank    1. copies its tensors, then on a thread of its own:
//                2. makes .tmp-step-N (one rank does, the others find it)
//                3. writes its shards there and fsyncs each
//   all ranks    4. agree, in poll(), that every rank has finished; rank 0 gets what they wrote
//   rank 0       5. writes the index, then manifest.json, and fsyncs both
//   (a thread)   6. fsyncs .tmp-step-N, so that all its names are on the disk
//                7. if step-N exists already: renames it to .old-step-N
//                8. renames .tmp-step-N to step-N, fsyncs the parent; removes .old-step-N
//                9. deletes what keep-K no longer wants: renames to .del-step-M, then removes that
//   all ranks   10. learn, in poll(), how it went
//
// Readers look at the names step-N only. Nothing is ever written into a step-N. It comes into being
// by one rename (8), which is atomic, of a folder whose every byte was fsynced before (3, 5, 6),
// and it stops being one by one rename (7, 9), also atomic. So a kill
//   - before 7 leaves .tmp-step-N, which the next run removes: the old set;
//   - between 7 and 8 leaves .old-step-N and no step-N: complete, and whoever looks next
//     (newest_good_checkpoint, the next writer) gives it its name back first: the old set;
//   - after 8 leaves the new set, perhaps with an .old-step-N beside it, which the next run removes
//     because step-N exists;
//   - in 9 leaves at worst a half-removed .del-step-M, which the next run removes; the new step-N
//   is
//     committed by then.
// A loss of power is the same as a kill, because of the fsyncs: the rename in 8 can only reach the
// disk after the data it stands for. Should it be lost, the old set is there. A checkpoint that
// keep-K gave up is renamed only after the parent's fsync, so it cannot vanish while the new one is
// still in doubt.
//
// A failure on any rank (a full disk) arrives at rank 0 in step 4. It removes .tmp-step-N and logs
// one error; nothing else was touched.
#include "distributed/checkpoint.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <thread>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/file.h"
#include "distributed/checkpoint_commit.h"
#include "distributed/checkpoint_folder.h"

namespace cohort::distributed {
namespace {

namespace fs = std::filesystem;

/// Every rank's text, at rank 0 only (manifests of thousands of ranks are no small thing); empty
/// elsewhere. Collective.
std::vector<std::string> gather_text_at_root(const std::string& text, Communicator& world) {
  // 64-bit rows, the first of which is the length.
  const auto ranks = static_cast<size_t>(world.size());
  const auto rows = static_cast<int64_t>(1 + (text.size() + 7) / 8);
  at::Tensor in = at::zeros({rows}, at::kLong);
  in.data_ptr<int64_t>()[0] = static_cast<int64_t>(text.size());
  if (!text.empty()) std::memcpy(in.data_ptr<int64_t>() + 1, text.data(), text.size());
  std::vector<int64_t> send(ranks, 0), receive(ranks, 0);
  send[0] = rows;
  world.all_to_all_counts(send.data(), receive.data(), 1);
  int64_t total = 0;
  for (const int64_t count : receive) total += count;
  at::Tensor out = at::empty({total}, at::kLong);
  world.all_to_all_v(out, receive, in, send);
  std::vector<std::string> texts;
  if (world.rank() != 0) return texts;
  const int64_t* next = out.data_ptr<int64_t>();
  for (const int64_t count : receive) {
    texts.emplace_back(reinterpret_cast<const char*>(next + 1), static_cast<size_t>(next[0]));
    next += count;
  }
  return texts;
}

/// The tensors as they are now, whatever happens to them afterwards.
void copy_tensors(std::vector<CheckpointSlice>& slices) {
  for (auto& slice : slices)
    slice.data = at::empty(slice.data.sizes(), slice.data.options().device(at::kCPU))
                     .copy_(slice.data.detach());
}

}  // namespace

struct CheckpointWriter::State {
  std::string folder;
  std::shared_ptr<Communicator> world;
  nlohmann::json mesh;
  bool async;
  std::optional<CheckpointCommit> commit;  ///< Rank 0's.

  /// kWriting: every rank writes its shards. kCommitting: rank 0 makes a checkpoint of them. All
  /// ranks are always in the same phase.
  enum class Phase { kIdle, kWriting, kCommitting } phase = Phase::kIdle;
  int64_t step = -1;
  bool succeeded = true;
  std::thread thread;
  std::atomic<bool> done{false};  ///< The thread's: `result` and `error` may be read.
  std::string result, error;

  /// Runs `work` on a thread (here, if the system gives none).
  void start(std::function<std::string()> work) {
    done = false;
    result.clear();
    error.clear();
    auto job = std::make_shared<std::function<std::string()>>(std::move(work));
    const auto body = [this, job] {
      try {
        result = (*job)();
      } catch (const std::exception& problem) {
        error = problem.what();
      }
      *job = nullptr;  // The copied tensors are memory that training may want.
      done = true;
    };
    try {
      thread = std::thread(body);
    } catch (const std::system_error&) {
      body();
    }
  }

  void join() {
    if (thread.joinable()) thread.join();
  }

  bool all_done() {
    at::Tensor flag = at::full({1}, done.load() ? 1 : 0, at::kLong);
    world->all_reduce(flag, ReduceOp::kMin);
    return flag.item<int64_t>() == 1;
  }

  void begin_commit() {
    auto reports = gather_text_at_root(ShardReport{result, error}.text(), *world);
    phase = Phase::kCommitting;
    if (world->rank() == 0)
      start([this, reports = std::move(reports)] {
        commit->run(reports);
        return std::string();
      });
    else
      done = true;
  }

  void end_commit() {
    const std::string failure = world->all_gather_text(world->rank() == 0 ? error : "")[0];
    phase = Phase::kIdle;
    succeeded = failure.empty();
    if (succeeded || world->rank() != 0) return;
    spdlog::error(
        "the checkpoint of step {} was not written: {}; earlier ones are untouched", step, failure);
  }
};

CheckpointWriter::CheckpointWriter(std::string folder, const Mesh& mesh, int64_t keep, bool async)
    : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->world = mesh.world;
  state_->async = async;
  state_->mesh = {{"world", mesh.shape.world},
                  {"dp", mesh.shape.dp},
                  {"ep", mesh.shape.ep},
                  {"edp", mesh.shape.edp},
                  {"pp", mesh.shape.pp}};
  std::string fault;
  if (mesh.world->rank() == 0) {
    state_->commit.emplace(folder, keep);
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) fault = fmt::format("cannot make folder {}: {}", folder, error.message());
    if (fault.empty()) try {
        clear_remains(folder);
      } catch (const std::exception& problem) {
        fault = problem.what();
      }
  }
  fault = mesh.world->all_gather_text(fault)[0];
  std::error_code ignored;
  if (fault.empty() && !fs::is_directory(folder, ignored))
    fault = fmt::format(
        "rank {} does not see {}, which rank 0 made: checkpoints need a file system that all ranks "
        "share",
        mesh.world->rank(),
        folder);
  for (const auto& text : mesh.world->all_gather_text(fault))
    COHORT_CHECK_INPUT(text.empty(), "{}", text);
}

CheckpointWriter::~CheckpointWriter() {
  // While an exception goes through, other ranks may be elsewhere: no collective then.
  if (std::uncaught_exceptions() == 0) try {
      finish();
    } catch (const std::exception& problem) {
      spdlog::error("the checkpoint of step {} was not finished: {}", state_->step, problem.what());
    }
  state_->join();
}

void CheckpointWriter::save(int64_t step, CheckpointContent content) {
  finish();
  State& state = *state_;
  state.step = step;
  state.phase = State::Phase::kWriting;
  const int rank = state.world->rank();
  if (rank == 0) state.commit->prepare(step, state.mesh, std::move(content.state));
  try {
    at::NoGradGuard no_grad;
    if (state.async) copy_tensors(content.model);
    if (state.async) copy_tensors(content.optimizer);
    if (rank != 0) content.files.clear();
  } catch (const std::exception& problem) {
    // Out of memory, say. This rank goes the same way as the others, and says so at its end.
    state.start([reason = std::string(problem.what())]() -> std::string {
      throw Error("cannot copy the tensors: " + reason.substr(0, reason.find('\n')));
    });
    return;
  }
  auto held = std::make_shared<CheckpointContent>(std::move(content));
  state.start([&state, held, rank, step] {
    return write_shards(
        temporary_path(state.folder, step), std::move(*held), rank, state.world->size());
  });
  if (!state.async) finish();
}

void CheckpointWriter::poll() {
  State& state = *state_;
  if (state.phase == State::Phase::kIdle || !state.all_done()) return;
  state.join();
  if (state.phase == State::Phase::kWriting)
    state.begin_commit();
  else
    state.end_commit();
}

bool CheckpointWriter::finish() {
  // Short collectives, again and again: a slow disk must not look like a rank that hangs.
  auto pause = std::chrono::microseconds(200);
  while (state_->phase != State::Phase::kIdle) {
    const auto before = state_->phase;
    poll();
    if (state_->phase == before) {
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::microseconds(20000));
    }
  }
  return state_->succeeded;
}

}  // namespace cohort::distributed
