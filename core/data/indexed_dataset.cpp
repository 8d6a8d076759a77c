#include "core/data/indexed_dataset.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace cohort::core {
namespace {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr int64_t kHeaderBytes = 9 + 8 + 1 + 8 + 8;

/// A whole file in memory, read only.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    COHORT_CHECK_INPUT(file >= 0,
                       "{}: cannot be read: {} (a token set is a .bin and an .idx file, as `cohort "
                       "data prepare` writes them)",
                       path,
                       std::strerror(errno));
    struct stat status {};
    const bool regular = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    size_ = regular ? status.st_size : 0;
    void* mapped = nullptr;
    if (size_ > 0) mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
    const int why = errno;
    ::close(file);
    COHORT_CHECK_INPUT(regular, "{}: not a file", path);
    COHORT_CHECK(mapped != MAP_FAILED, "{}: mmap of {} bytes: {}", path, size_, std::strerror(why));
    data_ = static_cast<const std::byte*>(mapped);
  }
  ~MappedFile() {
    if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  int64_t size() const { return size_; }
  /// The index is packed without padding: its integers are not aligned.
  template <class T>
  T at(int64_t offset) const {
    T value;
    std::memcpy(&value, data_ + offset, sizeof value);
    return value;
  }

 private:
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

int bytes_of_type(int code) {
  switch (code) {
    case 1:  // uint8
    case 2:  // int8
      return 1;
    case 3:  // int16
    case 8:  // uint16
      return 2;
    case 4:  // int32
      return 4;
    case 5:  // int64
      return 8;
    default:
      return 0;
  }
}

/// Calls body with a pointer of the tokens' type.
template <class Body>
auto with_type(int code, const std::byte* data, const Body& body) {
  switch (code) {
    case 1:
      return body(reinterpret_cast<const uint8_t*>(data));
    case 2:
      return body(reinterpret_cast<const int8_t*>(data));
    case 3:
      return body(reinterpret_cast<const int16_t*>(data));
    case 4:
      return body(reinterpret_cast<const int32_t*>(data));
    case 5:
      return body(reinterpret_cast<const int64_t*>(data));
    default:
      return body(reinterpret_cast<const uint16_t*>(data));
  }
}

struct Index {
  int type;
  std::vector<int64_t> starts;  ///< First token of each document, and the number of tokens.
};

Index read_index(const std::string& path) {
  const MappedFile file(path);
  COHORT_CHECK_INPUT(
      file.size() >= kHeaderBytes && std::memcmp(file.data(), kMagic, sizeof kMagic) == 0,
      "{}: not a Megatron token index: it does not begin with MMIDIDX and a {}-byte header",
      path,
      kHeaderBytes);
  const auto version = file.at<uint64_t>(9);
  COHORT_CHECK_INPUT(version == 1, "{}: index version {}; only version 1 is known", path, version);
  const int type = file.at<uint8_t>(17);
  COHORT_CHECK_INPUT(bytes_of_type(type) > 0,
                     "{}: token type code {} is not an integer type (1 uint8, 3 int16, 4 int32, 5 "
                     "int64, 8 uint16)",
                     path,
                     type);
  const auto sequences = file.at<uint64_t>(18), marks = file.at<uint64_t>(26);
  const uint64_t room = static_cast<uint64_t>(file.size() - kHeaderBytes);
  const bool plausible = sequences <= room / 12 && marks <= room / 8;
  COHORT_CHECK_INPUT(!plausible || room != 13 * sequences + 8 * marks || sequences == 0,
                     "{}: a multimodal index (one mode a sequence); Cohort reads text only",
                     path);
  COHORT_CHECK_INPUT(plausible && room == 12 * sequences + 8 * marks,
                     "{}: {} bytes do not hold the {} sequences and {} document marks that its "
                     "header tells: the file is cut or damaged",
                     path,
                     file.size(),
                     sequences,
                     marks);

  const int64_t lengths_at = kHeaderBytes, pointers_at = lengths_at + 4 * sequences,
                marks_at = pointers_at + 8 * sequences;
  const int64_t num_sequences = static_cast<int64_t>(sequences),
                num_marks = static_cast<int64_t>(marks);
  COHORT_CHECK_INPUT(num_marks >= 1 && file.at<int64_t>(marks_at) == 0 &&
                         file.at<int64_t>(marks_at + 8 * (num_marks - 1)) == num_sequences,
                     "{}: document marks must run from 0 to the number of sequences ({})",
                     path,
                     num_sequences);
  Index index{type, {0}};
  index.starts.reserve(num_marks);
  int64_t tokens = 0;
  for (int64_t document = 0, sequence = 0; document + 1 < num_marks; ++document) {
    const auto end = file.at<int64_t>(marks_at + 8 * (document + 1));
    COHORT_CHECK_INPUT(end >= sequence && end <= num_sequences,
                       "{}: document {} ends at sequence {}, outside [{}, {}]",
                       path,
                       document,
                       end,
                       sequence,
                       num_sequences);
    for (; sequence < end; ++sequence) {
      const auto length = file.at<int32_t>(lengths_at + 4 * sequence);
      const auto pointer = file.at<int64_t>(pointers_at + 8 * sequence);
      COHORT_CHECK_INPUT(length >= 0, "{}: sequence {} has the length {}", path, sequence, length);
      COHORT_CHECK_INPUT(pointer == tokens * bytes_of_type(type),
                         "{}: sequence {} begins at byte {}; the lengths before it put it at {}",
                         path,
                         sequence,
                         pointer,
                         tokens * bytes_of_type(type));
      tokens += length;
    }
    index.starts.push_back(tokens);
  }
  return index;
}

TokenSetInfo read_info(const std::string& path) {
  TokenSetInfo info;
  std::ifstream file(path);
  if (!file) return info;
  const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  COHORT_CHECK_INPUT(json.is_object(),
                     "{}: not a JSON object; write it again with `cohort data prepare`, or remove "
                     "it (the token set is read without it)",
                     path);
  const auto integer = [&](const char* key, int64_t otherwise) {
    if (!json.contains(key)) return otherwise;
    COHORT_CHECK_INPUT(json[key].is_number_integer(), "{}: {} must be an integer", path, key);
    return json[key].get<int64_t>();
  };
  const auto text = [&](const char* key) {
    if (!json.contains(key)) return std::string();
    COHORT_CHECK_INPUT(json[key].is_string(), "{}: {} must be a string", path, key);
    return json[key].get<std::string>();
  };
  info.bytes = integer("bytes", 0);
  info.vocab_size = integer("vocab_size", 0);
  COHORT_CHECK_INPUT(info.bytes >= 0 && info.vocab_size >= 0,
                     "{}: bytes and vocab_size must not be negative",
                     path);
  info.tokenizer = text("tokenizer");
  info.tokenizer_xxh3 = text("tokenizer_xxh3");
  info.begin_token = static_cast<int32_t>(integer("begin_token", -1));
  info.end_token = static_cast<int32_t>(integer("end_token", -1));
  if (!info.tokenizer.empty())  // An absolute path on the right of `/` wins.
    info.tokenizer = (std::filesystem::path(path).parent_path() / info.tokenizer).string();
  return info;
}

}  // namespace

std::string token_set_prefix(const std::string& path) {
  for (const char* ending : {".bin", ".idx"})
    if (path.ends_with(ending)) return path.substr(0, path.size() - 4);
  return path;
}

struct IndexedDataset::State {
  explicit State(const std::string& named)
      : prefix(token_set_prefix(named)),
        index(read_index(prefix + ".idx")),
        tokens(prefix + ".bin"),
        info(read_info(prefix + ".json")) {
    const int64_t expected = index.starts.back() * bytes_of_type(index.type);
    COHORT_CHECK_INPUT(tokens.size() == expected,
                       "{}.bin: {} bytes, but its index tells of {} tokens, {} bytes: the file is "
                       "cut, or the two do not belong together",
                       prefix,
                       tokens.size(),
                       index.starts.back(),
                       expected);
  }

  std::string prefix;
  Index index;
  MappedFile tokens;
  TokenSetInfo info;
};

IndexedDataset::IndexedDataset(const std::string& prefix)
    : state_(std::make_unique<State>(prefix)) {}
IndexedDataset::~IndexedDataset() = default;
IndexedDataset::IndexedDataset(IndexedDataset&&) noexcept = default;

int64_t IndexedDataset::num_documents() const {
  return static_cast<int64_t>(state_->index.starts.size()) - 1;
}
int64_t IndexedDataset::num_tokens() const { return state_->index.starts.back(); }
int64_t IndexedDataset::document_length(int64_t document) const {
  return document_start(document + 1) - document_start(document);
}
int64_t IndexedDataset::document_start(int64_t document) const {
  COHORT_CHECK(document >= 0 && document <= num_documents(),
               "{}: document {} of {}",
               state_->prefix,
               document,
               num_documents());
  return state_->index.starts[document];
}
int64_t IndexedDataset::document_at(int64_t position) const {
  COHORT_CHECK(position >= 0 && position < num_tokens(),
               "{}: token {} of {}",
               state_->prefix,
               position,
               num_tokens());
  const auto& starts = state_->index.starts;
  return std::upper_bound(starts.begin(), starts.end(), position) - starts.begin() - 1;
}

void IndexedDataset::read(int64_t document, int64_t offset, int64_t count, int64_t* out) const {
  const int64_t length = document_length(document);
  COHORT_CHECK(offset >= 0 && count >= 0 && count <= length - offset,
               "{}: tokens [{}, {}) of document {}, which has {}",
               state_->prefix,
               offset,
               offset + count,
               document,
               length);
  const int64_t first = document_start(document) + offset;
  with_type(state_->index.type, state_->tokens.data(), [&](const auto* tokens) {
    std::copy_n(tokens + first, count, out);
  });
}

const TokenSetInfo& IndexedDataset::info() const { return state_->info; }
const std::string& IndexedDataset::prefix() const { return state_->prefix; }
int IndexedDataset::token_bytes() const { return bytes_of_type(state_->index.type); }

void IndexedDataset::check_tokens(int64_t vocab_size, int64_t limit) const {
  const int64_t count = limit < 0 ? num_tokens() : std::min(limit, num_tokens());
  with_type(state_->index.type, state_->tokens.data(), [&](const auto* tokens) {
    using Token = std::remove_cvref_t<decltype(*tokens)>;
    constexpr int64_t kPiece = 1 << 16;
    for (int64_t begin = 0; begin < count; begin += kPiece) {
      const int64_t end = std::min(begin + kPiece, count);
      Token least = 0, most = 0;  // Plain reductions: the compiler vectorises them.
      for (int64_t i = begin; i < end; ++i) {
        least = std::min(least, tokens[i]);
        most = std::max(most, tokens[i]);
      }
      if (least >= 0 && static_cast<int64_t>(most) < vocab_size) continue;
      const auto* bad = std::find_if(tokens + begin, tokens + end, [&](Token token) {
        return token < 0 || static_cast<int64_t>(token) >= vocab_size;
      });
      const int64_t document = document_at(bad - tokens);
      throw InputError(
          fmt::format("{}.bin: token {} of document {} is {}, but the vocabulary has ids 0 to {}",
                      state_->prefix,
                      bad - tokens - document_start(document),
                      document,
                      static_cast<int64_t>(*bad),
                      vocab_size - 1));
    }
  });
}

}  // namespace cohort::core
