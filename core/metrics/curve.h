// Long series in bounded memory, for plots: a run of any length becomes a page of a few megabytes.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cohort::core {

/// One metric over the steps. Values are gathered into bins of equally many consecutive values
/// (one, while there is room); a bin keeps mean, least and greatest, so a spike is never lost.
class Curve {
 public:
  /// Keeps at most 2 * `bins`, and at least `bins` once that many values were added.
  explicit Curve(size_t bins) : max_bins_(2 * bins) {}

  /// `value` is finite; steps come in rising order.
  void add(int64_t step, double value);
  /// Halves until at most `bins` are left.
  void shrink(size_t bins);
  size_t size() const { return bins_.size(); }

  /// {"x": [...], "y": [...]} and, when a bin holds several values, {"lo", "hi"}; six digits.
  nlohmann::ordered_json json() const;

 private:
  struct Bin {
    int64_t first_step, last_step, count;
    double sum, least, greatest;
  };
  void halve();

  size_t max_bins_;
  int64_t stride_ = 1;  ///< Values a full bin.
  std::vector<Bin> bins_;
};

/// Loads of the experts of every layer over the steps, binned like a Curve.
class LoadHistory {
 public:
  /// `cells`: bound on layers x experts x bins of the result, which costs 4/3 byte a cell.
  explicit LoadHistory(size_t cells) : max_cells_(cells) {}

  /// Each key of `line` whose value is an array of numbers is a layer. Lines of one run have the
  /// same layers; a layer that comes later or changes its number of experts starts from zero loads.
  void add(int64_t step, const nlohmann::ordered_json& line);

  /// {"from": [first step of each bin], "to": [last step], "layers": [{"name", "experts",
  /// "data"}]}. `data` is base64 of one byte an expert and bin, bin-major: 0 = no token at all,
  /// else 128 + 32 log2(load / mean load of the layer in that bin), clamped to 1..255. Null when
  /// empty.
  nlohmann::ordered_json json() const;

 private:
  struct Bin {
    int64_t first_step, last_step, count;
    std::vector<std::vector<double>> loads;  ///< [layer][expert], summed over the bin.
  };
  size_t max_bins() const;
  void halve();

  size_t max_cells_;
  int64_t stride_ = 1;
  std::vector<std::string> layers_;
  std::vector<size_t> experts_;  ///< [layer]
  std::vector<Bin> bins_;
};

std::string base64(const std::string& bytes);

/// `value` with six significant digits, so that its text is short.
double six_digits(double value);

}  // namespace cohort::core
