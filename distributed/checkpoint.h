// Checkpoints: a folder of safetensors shards and one manifest.json (global name, shape, dtype,
// shard slices, xxh3 of each slice). Written under a temporary name, fsynced, renamed. Loads onto
// any mesh, because a slice is found by its global name.
//
//   RUN_DIR/checkpoints/step-00000040/
//     manifest.json                          what is where; state (seed, data position, ...); mesh
//     model-00001-of-00004.safetensors       whole tensors under Hugging Face's names, with
//     model.safetensors.index.json,          which other tools can open the folder as a model
//     config.json
//     optimizer-00001-of-00004.safetensors   flat slices of masters and moments
//
// Shard i of n is rank i - 1's of n ranks; a rank that has nothing for a shard writes none.
#pragma once
#include "core/nn/parameter.h"
#include "distributed/mesh.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace cohort::distributed {

/// What one rank gives to a checkpoint. Tensors are copied when a save starts.
struct CheckpointSlice {
  std::string name;            ///< Global name; optimizer state is "<parameter>#exp_avg" and so on.
  std::vector<int64_t> shape;  ///< Global shape.
  int64_t begin, end;  ///< Elements of the flattened global tensor; a whole tensor: 0, numel.
  at::Tensor data;     ///< 1-D or any shape with end - begin elements, CPU.
};

struct CheckpointContent {
  std::vector<CheckpointSlice> model;      ///< Whole tensors, each given by exactly one rank.
  std::vector<CheckpointSlice> optimizer;  ///< Slices that together cover each tensor once.
  nlohmann::json state;                    ///< Rank 0's is kept.
  std::vector<std::pair<std::string, std::string>>
      files;  ///< Small text files (name, content) from rank 0: config.json, tokenizer.json.
};

/// Writes checkpoints of a run, one at a time. All calls are collective over mesh.world.
class CheckpointWriter {
 public:
  /// keep: newest good ones left on disk (0 = all). Checkpoints of a later step that this writer
  /// did not write itself (a resume passed them over) are neither counted nor deleted. The folder
  /// is made when missing; half-written ones of a dead run are removed. Throws InputError on all
  /// ranks when that cannot be done, or when a rank does not see the folder.
  CheckpointWriter(std::string folder, const Mesh& mesh, int64_t keep, bool async);
  ~CheckpointWriter();

  /// Starts a save (waits for one under way first). With async, returns once the tensors are
  /// copied. A save that fails on any rank (a full disk) leaves no trace but a logged error that
  /// names the reason; older checkpoints stay and training goes on.
  void save(int64_t step, CheckpointContent content);
  /// To be called once a step: commits a save that all ranks have finished. Costs nothing while
  /// none is under way, else one reduction of an integer.
  void poll();
  /// Waits for the save under way. Returns whether the last save succeeded.
  bool finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// A checkpoint's folder, by its name.
struct CheckpointPath {
  int64_t step;
  std::string path;
};

/// What stands under `folder`, good or not, newest first; empty when there is no such folder.
/// Throws InputError when it cannot be read.
std::vector<CheckpointPath> checkpoints_in(const std::string& folder);

/// Checks every byte of a checkpoint, or of each `parts`-th file of it from `part` on. One line for
/// each fault (which file, which tensor); empty when all is well. A manifest that cannot be used is
/// such a fault, nothing is thrown.
std::vector<std::string> verify_checkpoint(const std::string& folder, int part = 0, int parts = 1);

/// Read side; not collective. Files are opened when they are first asked for. For one thread.
class CheckpointReader {
 public:
  /// Throws InputError when the manifest is missing or malformed, or a shard is missing or has
  /// another size than recorded.
  explicit CheckpointReader(const std::string& folder);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;

  const nlohmann::json& state() const;
  std::vector<std::string> names() const;
  /// Those of the trained model: without optimizer state and whatever else a run keeps.
  std::vector<std::string> model_names() const;
  at::ScalarType dtype(const std::string& name) const;
  bool has(const std::string& name) const;
  std::vector<int64_t> shape(const std::string& name) const;
  /// Elements [begin, end) of the flattened tensor, from whichever shards hold them, as `dtype`.
  /// Each slice it touches is checked whole against its xxh3, the first time; InputError names file
  /// and tensor when it is damaged.
  at::Tensor elements(const std::string& name,
                      int64_t begin,
                      int64_t end,
                      at::ScalarType dtype) const;
  /// The whole tensor in its own dtype.
  at::Tensor tensor(const std::string& name) const;
  /// Reads every byte. Returns one line for each fault found (which file, which tensor); empty when
  /// all is well.
  std::vector<std::string> verify() const;
  nlohmann::json manifest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The newest checkpoint under `folder` that verifies in full, or nullopt when there is none at
/// all. Logs a warning for each newer one passed over, naming the fault. Throws InputError when
/// there are checkpoints and none verifies. Rank 0 lists, all ranks share the verifying, and all
/// get the same answer. Collective.
std::optional<std::string> newest_good_checkpoint(const std::string& folder, const Mesh& mesh);

}  // namespace cohort::distributed
