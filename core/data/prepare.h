// `cohort data prepare`: text -> token sets for training and validation, and a card of what was
// read, dropped and why.
#pragma once
#include "core/data/data_card.h"
#include "core/data/text_source.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

/// Ids of a text, without any token at its ends. Called from several threads at once.
using Encoder = std::function<std::vector<int32_t>(std::string_view)>;

struct PrepareOptions {
  std::vector<std::string> inputs;  ///< Files, folders, glob patterns.
  std::string out;                  ///< Folder for the outputs; made when missing.
  TextOptions text;
  double validation_fraction = 0.01;  ///< Share of documents held out, [0, 1).
  int64_t min_chars = 1;              ///< Documents with fewer Unicode characters are dropped.
  bool stop_at_broken = false;        ///< Refuse broken input rather than skip and count it.
  int threads = 0;                    ///< Encoding at once; 0: one a core.

  int64_t vocab_size = 0;
  int32_t begin_token = -1;  ///< Put before each document, so that its first word is predicted too;
                             ///< -1: none.
  int32_t end_token = -1;    ///< Put after each document; -1: none.
  std::string tokenizer;     ///< tokenizer.json; a copy goes to OUT/tokenizer.json. May be empty.

  std::function<void(int64_t documents, int64_t text_bytes)> progress;  ///< Called now and then.
};

/// Writes OUT/train.{bin,idx,json}, OUT/validation.{bin,idx,json,txt} (the held-out text itself,
/// each document followed by a newline; nothing when none was held out) and OUT/data_card.json.
/// Every file appears whole or not at all, the card last. What is written is a function of the
/// inputs and options: the number of threads changes nothing. Memory: a few MiB a thread (more when
/// a document is larger) and about 50 bytes a document.
///
/// Throws InputError for options out of range, a missing input, broken input with `stop_at_broken`
/// ("file:line: why"), and when no document is left for training; Error when a file cannot be
/// written.
DataCard prepare(const PrepareOptions& options, const Encoder& encode);

/// Whether a document is held out: a function of its text alone, for ever, so that it lands on the
/// same side whatever else there is. True for a `fraction` of all texts, and for more of them as
/// `fraction` grows.
bool is_validation(std::string_view text, double fraction);

/// Reads all inputs in order, one document after the other, broken and short ones left out: a
/// sample to train a tokenizer on. Held-out documents are left out too. Stops after `max_bytes`.
class DocumentStream {
 public:
  DocumentStream(const PrepareOptions& options, int64_t max_bytes);
  /// The next text; false at the end.
  bool next(std::string& text);

 private:
  PrepareOptions options_;
  std::vector<std::string> files_;
  std::vector<RecordReader> open_;  ///< The file being read: none or one.
  size_t next_file_ = 0;
  int64_t bytes_left_;
};

}  // namespace cohort::core
