#include "core/tokenizer/tokenizer.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <unordered_map>

#include "core/tokenizer/byte_level.h"
#include "core/tokenizer/bytes_index.h"
#include "core/tokenizer/definition.h"
#include "core/tokenizer/pretokenizer.h"
#include "core/tokenizer/pretokens.h"

namespace cohort::core {
namespace {

// Words repeat: most of encode is looking them up. Longer pre-tokens hardly do.
constexpr size_t kMaxCachedBytes = 128;
constexpr uint32_t kMaxCachedWords = 1 << 17;

/// What one thread works with; pre-tokens it has met, with their ids.
struct Workspace {
  MatchScratch match;
  Bpe::Scratch bpe;
  BytesIndex words;
  std::vector<size_t> ends;  // of each word's ids in `ids`
  std::vector<int32_t> ids;

  void forget() {
    words.clear();
    ends.clear();
    ids.clear();
  }
};

AddedTokens choose(const TokenizerDefinition& definition, bool normalized) {
  std::vector<AddedToken> chosen;
  for (AddedToken token : definition.added) {
    if (token.normalized != normalized) continue;
    if (normalized && definition.is_nfc) token.content = nfc(token.content);
    chosen.push_back(std::move(token));
  }
  return AddedTokens(std::move(chosen));
}

std::vector<std::string> bytes_of_tokens(const TokenizerDefinition& definition) {
  std::vector<std::string> bytes(definition.vocab_size());
  for (size_t id = 0; id < definition.vocabulary.size(); ++id) {
    // What stands for no bytes is a token only as a whole: itself.
    const std::string& token = definition.vocabulary[id];
    bytes[id] = from_byte_level(token).value_or(token);
  }
  for (const AddedToken& token : definition.added) bytes[token.id] = token.content;
  return bytes;
}

std::array<int32_t, 256> ids_of_bytes(
    const std::unordered_map<std::string_view, int32_t>& vocabulary, const std::string& name) {
  std::array<int32_t, 256> ids;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string token = to_byte_level(std::string(1, static_cast<char>(byte)));
    const auto found = vocabulary.find(token);
    COHORT_CHECK_INPUT(
        found != vocabulary.end(),
        "{}: model.vocab: no token for byte 0x{:02X} ('{}'): a byte-level vocabulary "
        "has one for each of the 256",
        name,
        byte,
        token);
    ids[byte] = found->second;
  }
  return ids;
}

}  // namespace

struct Tokenizer::State {
  explicit State(TokenizerDefinition given)
      : definition(std::move(given)),
        bytes(bytes_of_tokens(definition)),
        added(choose(definition, false)),
        added_normalized(choose(definition, true)),
        pretokenizer(
            JsonField(definition.header["pre_tokenizer"], definition.name, "pre_tokenizer")),
        ids(ids_by_content(definition)),
        bpe(ids_of_bytes(ids, definition.name), definition.merges) {
    special.resize(bytes.size());
    for (const AddedToken& token : definition.added) special[token.id] = token.special;
  }

  static std::unordered_map<std::string_view, int32_t> ids_by_content(
      const TokenizerDefinition& definition) {
    std::unordered_map<std::string_view, int32_t> ids;
    for (size_t id = 0; id < definition.vocabulary.size(); ++id)
      ids.emplace(definition.vocabulary[id], static_cast<int32_t>(id));
    for (const AddedToken& token : definition.added) ids.emplace(token.content, token.id);
    return ids;
  }

  void encode(std::string_view text,
              bool special,
              Workspace& work,
              std::vector<int32_t>& out) const {
    added.split(
        text,
        special,
        [&](std::string_view piece) {
          split_at_broken_utf8(
              piece,
              [&](std::string_view valid) { encode_valid(valid, special, work, out); },
              [&](std::string_view broken) { encode_word(broken, work, out); });
        },
        [&](int32_t id) { out.push_back(id); });
  }

  void encode_valid(std::string_view text,
                    bool special,
                    Workspace& work,
                    std::vector<int32_t>& out) const {
    with_nfc(definition.is_nfc, text, [&](std::string_view normal) {
      added_normalized.split(
          normal,
          special,
          [&](std::string_view piece) {
            pretokenizer.split(
                piece, work.match, [&](std::string_view word) { encode_word(word, work, out); });
          },
          [&](int32_t id) { out.push_back(id); });
    });
  }

  void encode_word(std::string_view word, Workspace& work, std::vector<int32_t>& out) const {
    if (word.size() > kMaxCachedBytes) return encode_new(word, work, out);
    if (work.words.size() >= kMaxCachedWords) work.forget();
    const uint32_t index = work.words.insert(word);
    if (index == work.ends.size()) {
      encode_new(word, work, work.ids);
      work.ends.push_back(work.ids.size());
    }
    const size_t begin = index ? work.ends[index - 1] : 0;
    out.insert(out.end(), work.ids.begin() + begin, work.ids.begin() + work.ends[index]);
  }

  void encode_new(std::string_view word, Workspace& work, std::vector<int32_t>& out) const {
    if (definition.ignore_merges) {
      const auto found = ids.find(to_byte_level(word));
      if (found != ids.end() &&
          found->second < static_cast<int32_t>(definition.vocabulary.size())) {
        out.push_back(found->second);
        return;
      }
    }
    bpe.encode(word, work.bpe, out);
  }

  std::unique_ptr<Workspace> take() const {
    {
      const std::lock_guard lock(mutex);
      if (!idle.empty()) {
        auto work = std::move(idle.back());
        idle.pop_back();
        return work;
      }
    }
    return std::make_unique<Workspace>();
  }
  void give_back(std::unique_ptr<Workspace> work) const {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(work));
  }

  TokenizerDefinition definition;
  std::vector<std::string> bytes;  // by id
  std::vector<bool> special;       // by id
  AddedTokens added, added_normalized;
  Pretokenizer pretokenizer;
  std::unordered_map<std::string_view, int32_t> ids;  // by content, as the file writes it
  Bpe bpe;
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Workspace>> idle;  // at most one a thread
};

Tokenizer::Tokenizer() = default;
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::parse(std::string_view json, const std::string& name) {
  Tokenizer made;
  made.state_ = std::make_shared<const State>(read_definition(json, name));
  return made;
}

Tokenizer Tokenizer::load(const std::string& path) {
  COHORT_CHECK_INPUT(
      std::filesystem::exists(path), "{}: no such file: a tokenizer.json is expected here", path);
  COHORT_CHECK_INPUT(
      !std::filesystem::is_directory(path), "{}: is a folder, should be a tokenizer.json", path);
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  COHORT_CHECK_INPUT(file.good() || (file.eof() && !file.bad()), "{}: cannot be read", path);
  return parse(text.str(), path);
}

std::string Tokenizer::to_json() const { return write_definition(state_->definition); }

void Tokenizer::save(const std::string& path) const {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  COHORT_CHECK_INPUT(folder.empty() || std::filesystem::is_directory(folder),
                     "{}: the folder {} does not exist",
                     path,
                     folder.string());
  COHORT_CHECK_INPUT(
      !std::filesystem::is_directory(path), "{}: is a folder, should be a file name", path);
  const std::string temporary = fmt::format("{}.{}.tmp", path, getpid());
  {
    std::ofstream file(temporary, std::ios::binary);
    file << to_json();
    file.close();
    if (!file) {
      std::error_code ignored;
      std::filesystem::remove(temporary, ignored);
      throw InputError(fmt::format("{}: cannot be written", path));
    }
  }
  std::filesystem::rename(temporary, path);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool special) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 8);
  auto work = state_->take();  // lost, not given back, when encoding throws
  state_->encode(text, special, *work, ids);
  state_->give_back(std::move(work));
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text;
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size() || (skip_special && state_->special[id])) continue;
    text += state_->bytes[id];
  }
  return replace_invalid_utf8(std::move(text));
}

std::string Tokenizer::token_bytes(int32_t id) const {
  COHORT_CHECK_INPUT(id >= 0 && id < vocab_size(),
                     "{}: no token has id {}: ids are 0 to {}",
                     state_->definition.name,
                     id,
                     vocab_size() - 1);
  return state_->bytes[id];
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(state_->bytes.size()); }

std::optional<int32_t> Tokenizer::token_id(std::string_view content) const {
  const auto found = state_->ids.find(content);
  if (found == state_->ids.end()) return std::nullopt;
  return found->second;
}

}  // namespace cohort::core
