#include "rl/sft_files.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/base/log.h"

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;

ordered_json entry_of(const SftFile& file) {
  ordered_json entry{{"path", file.path()},
                     {"xxh3", file.xxh3()},
                     {"documents", file.count()},
                     {"tokens", file.num_tokens()},
                     {"trained_tokens", file.num_trained()},
                     {"dropped", {{"longer_than_seq_len", file.left_out()}}}};
  if (file.num_teacher() > 0) entry["teacher_tokens"] = file.num_teacher();
  return entry;
}

}  // namespace

void warn_of_left_out(const SftFiles& files, int64_t seq_len) {
  std::vector<std::string> parts;
  for (const auto* list : {&files.train, &files.validation})
    for (const SftFile& file : *list)
      if (file.left_out() > 0)
        parts.push_back(fmt::format(
            "{} of {} in {}", file.left_out(), file.left_out() + file.count(), file.path()));
  if (!parts.empty())
    spdlog::warn(
        "examples longer than data.seq_len={} are left out: {}", seq_len, fmt::join(parts, ", "));
}

int64_t SftFiles::left_out() const {
  int64_t count = 0;
  for (const SftFile& file : train) count += file.left_out();
  return count;
}

std::string SftFiles::fingerprint() const {
  std::string text;
  for (const SftFile& file : train) text += (text.empty() ? "" : " ") + file.xxh3();
  return text;
}

SftFiles read_sft_files(const core::DataConfig& data, const SftFormat& format) {
  COHORT_CHECK_INPUT(!data.train.empty(),
                     "data.train names no examples; want JSONL files, as in "
                     "data.train=[{{path: examples.jsonl}}]");
  SftFiles files;
  for (const auto& source : data.train) {
    files.train.emplace_back(source.path, format, data.seq_len);
    files.weights.push_back(source.weight);
  }
  const bool told = std::any_of(files.train.begin(), files.train.end(), [](const SftFile& file) {
    return file.num_teacher() > 0;
  });
  COHORT_CHECK_INPUT(
      told || !format.teacher,
      "sft.distill.weight is above 0 and no example of data.train has a \"teacher\"; "
      "want a file that cohort sample wrote with sample.top_logprobs");
  if (!data.validation.empty())
    files.validation.emplace_back(data.validation, format, data.seq_len);
  return files;
}

ordered_json sft_data_card(const SftFiles& files, const core::DataConfig& data) {
  double sum = 0;
  for (const double weight : files.weights) sum += weight;
  ordered_json card{{"seq_len", data.seq_len}, {"sources", ordered_json::array()}};
  for (size_t i = 0; i < files.train.size(); ++i) {
    ordered_json entry = entry_of(files.train[i]);
    entry["weight"] = files.weights[i] / sum;
    card["sources"].push_back(entry);
  }
  card["validation"] = ordered_json::array();
  for (const SftFile& file : files.validation) card["validation"].push_back(entry_of(file));
  return card;
}

}  // namespace cohort::rl
