// Cuts a text into the pre-tokens within which BPE merges: a chain of stages, each of which cuts
// every piece of the one before it.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/json_field.h"
#include "core/tokenizer/pattern.h"

namespace cohort::core {

class Pretokenizer {
 public:
  /// From tokenizer.json's `pre_tokenizer`: ByteLevel, alone or as the end of a Sequence of Split
  /// (Isolated, Regex or String) and Digits. Throws InputError naming file and field.
  explicit Pretokenizer(const JsonField& json);

  /// Calls sink(string_view) for every pre-token of a valid UTF-8 text, in order. With
  /// add_prefix_space a pre-token may hold a space that the text does not.
  template <typename Sink>
  void split(std::string_view text, MatchScratch& scratch, Sink&& sink) const {
    if (!text.empty()) run(0, text, scratch, sink);
  }

 private:
  /// One of three: cut at the matches of a pattern, cut at a text, or put a space in front.
  struct Stage {
    std::shared_ptr<const Pattern> pattern;
    std::string literal;
  };

  void add_split(const JsonField& json);
  void add_byte_level(const JsonField& json);

  template <typename Sink>
  void run(size_t stage, std::string_view piece, MatchScratch& scratch, Sink& sink) const {
    if (stage == stages_.size()) return sink(piece);
    const auto& [pattern, literal] = stages_[stage];
    if (pattern) {
      run_pattern(*pattern, stage, piece, scratch, sink);
    } else if (!literal.empty()) {
      size_t done = 0;
      for (size_t at; (at = piece.find(literal, done)) != piece.npos;) {
        if (done < at) run(stage + 1, piece.substr(done, at - done), scratch, sink);
        run(stage + 1, piece.substr(at, literal.size()), scratch, sink);
        done = at + literal.size();
      }
      if (done < piece.size()) run(stage + 1, piece.substr(done), scratch, sink);
    } else if (piece.front() == ' ') {
      run(stage + 1, piece, scratch, sink);
    } else {
      const std::string prefixed = " " + std::string(piece);
      run(stage + 1, prefixed, scratch, sink);
    }
  }

  /// Matches and the gaps between them are pieces; an empty match is a cut where it stands.
  template <typename Sink>
  void run_pattern(const Pattern& pattern,
                   size_t stage,
                   std::string_view piece,
                   MatchScratch& scratch,
                   Sink& sink) const {
    size_t done = 0, from = 0;
    while (const auto match = pattern.find(piece, from, scratch)) {
      if (done < match->begin)
        run(stage + 1, piece.substr(done, match->begin - done), scratch, sink);
      if (match->begin < match->end)
        run(stage + 1, piece.substr(match->begin, match->end - match->begin), scratch, sink);
      done = match->end;
      if (done >= piece.size()) return;
      from = match->begin < match->end ? done : done + character_bytes(piece[done]);
      if (from > piece.size()) break;
    }
    if (done < piece.size()) run(stage + 1, piece.substr(done), scratch, sink);
  }
  static size_t character_bytes(char lead) {
    const unsigned char byte = static_cast<unsigned char>(lead);
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
  }

  void add_pattern(std::string_view regex, std::string where) {
    stages_.push_back({std::make_shared<const Pattern>(regex, std::move(where)), ""});
  }

  std::vector<Stage> stages_;
};

/// tokenizer.json's `normalizer` and `pre_tokenizer`, as two keys of an object, of "gpt2", "qwen2"
/// or "deepseek". Throws InputError at another name.
nlohmann::json pretokenizer_preset(const std::string& name);

}  // namespace cohort::core
