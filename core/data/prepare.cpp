#include "core/data/prepare.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_set>

#include "core/base/error.h"
#include "core/data/indexed_dataset.h"
#include "core/data/output_file.h"

namespace cohort::core {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBatchBytes = 1 << 20;
constexpr size_t kReasonsKept = 10;

struct TextHash {
  uint64_t low, high;
  bool operator==(const TextHash&) const = default;
};
struct FirstWord {
  size_t operator()(const TextHash& hash) const { return hash.low; }
};

/// A record on its way from a file to the writer.
struct Item {
  size_t source;
  Record record;
  TextHash hash{};
  bool too_short = false;
  std::vector<int32_t> tokens;
};
using Items = std::vector<Item>;

/// The part that runs on many threads; looks at nothing but its items.
Items encode_items(Items items, const PrepareOptions& options, const Encoder& encode) {
  for (Item& item : items) {
    parse_record(item.record, options.text);
    if (!item.record.broken.empty()) continue;
    const std::string& text = item.record.text;
    const int64_t characters = count_characters(text);
    item.too_short = characters == 0 || characters < options.min_chars;
    if (item.too_short) continue;
    const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
    item.hash = {hash.low64, hash.high64};
    if (options.begin_token >= 0) item.tokens.push_back(options.begin_token);
    const std::vector<int32_t> ids = encode(text);
    item.tokens.insert(item.tokens.end(), ids.begin(), ids.end());
    if (options.end_token >= 0) item.tokens.push_back(options.end_token);
  }
  return items;
}

/// The part that runs in the order of the documents: drops, divides, writes, counts.
class Collector {
 public:
  Collector(const PrepareOptions& options, const std::vector<std::string>& files)
      : options_(options),
        train_(out("train"), options.vocab_size),
        validation_(out("validation"), options.vocab_size),
        validation_text_(out("validation.txt")) {
    card_.sources.resize(files.size());
    for (size_t i = 0; i < files.size(); ++i) card_.sources[i].path = files[i];
  }

  void add(Items items) {
    for (const Item& item : items) add(item);
    if (options_.progress) {
      const auto documents = card_.train.documents + card_.validation.documents;
      options_.progress(documents, card_.train.bytes + card_.validation.bytes - documents);
    }
  }

  SourceCard& source(size_t i) { return card_.sources[i]; }

  DataCard finish() {
    const SourceCard total = card_.total();
    COHORT_CHECK_INPUT(
        card_.train.documents > 0,
        "no document is left for training: of {} read, {} were held out, {} duplicates, {} too "
        "short, {} broken{}",
        total.documents + total.duplicates + total.too_short + total.broken,
        card_.validation.documents,
        total.duplicates,
        total.too_short,
        total.broken,
        first_reason_.empty() ? "" : fmt::format(" (the first: {})", first_reason_));
    TokenSetInfo info{0, options_.vocab_size, "", "", options_.begin_token, options_.end_token};
    if (!options_.tokenizer.empty()) {
      copy_tokenizer();
      info.tokenizer = "tokenizer.json";
      info.tokenizer_xxh3 = file_xxh3(out("tokenizer.json"));
    }
    info.bytes = card_.train.bytes;
    train_.finish(info);
    if (card_.validation.documents > 0) {
      info.bytes = card_.validation.bytes;
      validation_.finish(info);
      validation_text_.commit();
      card_.validation_gzip_bits_per_byte = gzip_bits_per_byte(out("validation.txt"));
    } else {
      // An earlier preparation's held-out set would hold documents that are now trained on.
      for (const char* ending : {".idx", ".bin", ".json", ".txt"})
        fs::remove(out("validation") + ending);
    }
    describe(info);
    OutputFile card(out("data_card.json"));
    card.write(card_.to_json().dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
               "\n");
    card.commit();
    return std::move(card_);
  }

 private:
  std::string out(const std::string& name) const {
    return (fs::path(options_.out) / name).string();
  }

  void add(const Item& item) {
    SourceCard& source = card_.sources[item.source];
    if (!item.record.broken.empty()) {
      const std::string reason =
          fmt::format("{}:{}: {}", source.path, item.record.line, item.record.broken);
      COHORT_CHECK_INPUT(!options_.stop_at_broken, "{}", reason);
      if (first_reason_.empty()) first_reason_ = reason;
      if (source.reasons.size() < kReasonsKept) source.reasons.push_back(reason);
      ++source.broken;
    } else if (item.too_short) {
      ++source.too_short;
    } else if (!seen_.insert(item.hash).second) {
      ++source.duplicates;
    } else {
      keep(item, source);
    }
  }

  void keep(const Item& item, SourceCard& source) {
    const std::string& text = item.record.text;
    const auto bytes = static_cast<int64_t>(text.size()),
               tokens = static_cast<int64_t>(item.tokens.size());
    const bool held_out = is_validation(text, options_.validation_fraction);
    (held_out ? validation_ : train_).add_document(item.tokens);
    if (held_out) {
      validation_text_.write(text);
      validation_text_.write("\n");
    }
    SetCard& set = held_out ? card_.validation : card_.train;
    set.documents += 1;
    set.tokens += tokens;
    set.bytes += bytes + 1;
    source.documents += 1;
    source.validation_documents += held_out;
    source.tokens += tokens;
    source.text_bytes += bytes;
  }

  void copy_tokenizer() const {
    const std::string to = out("tokenizer.json");
    std::error_code ignored;
    if (fs::equivalent(options_.tokenizer, to, ignored)) return;
    InputFile from(options_.tokenizer);
    OutputFile copy(to);
    std::vector<char> buffer(1 << 16);
    while (const size_t count = from.read(buffer.data(), buffer.size()))
      copy.write(buffer.data(), count);
    COHORT_CHECK_INPUT(from.damage().empty(), "{}: {}", options_.tokenizer, from.damage());
    copy.commit();
  }

  void describe(const TokenSetInfo& info) {
    card_.options = {
        {"field", options_.text.field},
        {"split",
         std::vector{"file", "blank-lines", "lines"}[static_cast<size_t>(options_.text.split)]},
        {"validation_fraction", options_.validation_fraction},
        {"min_chars", options_.min_chars},
        {"on_error", options_.stop_at_broken ? "fail" : "skip"}};
    card_.tokenizer = {{"path", options_.tokenizer},
                       {"xxh3", info.tokenizer_xxh3},
                       {"vocab_size", options_.vocab_size},
                       {"begin_token", options_.begin_token},
                       {"end_token", options_.end_token}};
  }

  const PrepareOptions& options_;
  IndexedDatasetWriter train_, validation_;
  OutputFile validation_text_;
  std::unordered_set<TextHash, FirstWord> seen_;
  std::string first_reason_;
  DataCard card_;
};

void check_options(const PrepareOptions& options) {
  COHORT_CHECK_INPUT(!options.inputs.empty(), "no input: give files, folders or patterns");
  COHORT_CHECK_INPUT(!options.out.empty(), "no output folder: give one with --out");
  COHORT_CHECK_INPUT(options.validation_fraction >= 0 && options.validation_fraction < 1,
                     "--validation-fraction {} is not in [0, 1)",
                     options.validation_fraction);
  COHORT_CHECK_INPUT(options.min_chars >= 0, "--min-chars {} is negative", options.min_chars);
  COHORT_CHECK_INPUT(options.threads >= 0, "--threads {} is negative", options.threads);
  COHORT_CHECK_INPUT(!options.text.field.empty(), "--field is empty; JSON lines need one");
}

}  // namespace

bool is_validation(std::string_view text, double fraction) {
  const uint64_t low = XXH3_64bits(text.data(), text.size()) & 0xFFFFFFFFu;
  return static_cast<double>(low) < fraction * 0x1p32;
}

DataCard prepare(const PrepareOptions& options, const Encoder& encode) {
  check_options(options);
  const std::vector<std::string> files = expand_inputs(options.inputs, options.out);
  std::error_code why;
  fs::create_directories(options.out, why);
  COHORT_CHECK_INPUT(!why, "{}: the folder cannot be made: {}", options.out, why.message());

  Collector collector(options, files);
  const size_t threads =
      options.threads > 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  // Batches in the order of the documents, each encoded on a thread of its own. This thread reads
  // the next ones meanwhile and writes the oldest once it is done.
  std::deque<std::future<Items>> under_way;
  Items batch;
  int64_t batch_bytes = 0;
  const auto write_oldest = [&] {
    Items done = under_way.front().get();
    under_way.pop_front();
    collector.add(std::move(done));
  };
  const auto submit = [&] {
    if (under_way.size() >= threads) write_oldest();
    under_way.push_back(
        std::async(std::launch::async, [items = std::move(batch), &options, &encode]() mutable {
          return encode_items(std::move(items), options, encode);
        }));
    batch.clear();
    batch_bytes = 0;
  };

  for (size_t i = 0; i < files.size(); ++i) {
    RecordReader reader(files[i], options.text);
    Record record;
    while (reader.next(record)) {
      batch_bytes += static_cast<int64_t>(record.text.size()) + 64;
      batch.push_back({i, std::move(record), {}, false, {}});
      if (batch_bytes >= kBatchBytes) submit();
    }
    collector.source(i).file_bytes = reader.file().file_bytes();
    collector.source(i).xxh3 = reader.file().file_xxh3();
  }
  if (!batch.empty()) submit();
  while (!under_way.empty()) write_oldest();
  return collector.finish();
}

DocumentStream::DocumentStream(const PrepareOptions& options, int64_t max_bytes)
    : options_(options), bytes_left_(max_bytes) {
  check_options(options);
  files_ = expand_inputs(options.inputs, options.out);
}

bool DocumentStream::next(std::string& text) {
  while (bytes_left_ > 0) {
    if (open_.empty()) {
      if (next_file_ == files_.size()) return false;
      open_.emplace_back(files_[next_file_++], options_.text);
    }
    Record record;
    if (!open_.back().next(record)) {
      open_.clear();
      continue;
    }
    parse_record(record, options_.text);
    if (!record.broken.empty() ||
        count_characters(record.text) < std::max<int64_t>(options_.min_chars, 1) ||
        is_validation(record.text, options_.validation_fraction))
      continue;
    bytes_left_ -= static_cast<int64_t>(record.text.size());
    text = std::move(record.text);
    return true;
  }
  return false;
}

}  // namespace cohort::core
