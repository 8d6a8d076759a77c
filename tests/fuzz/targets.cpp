#include "tests/fuzz/targets.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/config/values.h"
#include "core/io/safetensors.h"
#include "core/tokenizer/tokenizer.h"
#include "rl/weight_source.h"
#include "tests/fixtures.h"

namespace cohort::tests {
namespace {

using nlohmann::ordered_json;

std::string text_of(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

/// The document changed as JSON, as bytes, or both.
std::string mutated(const ordered_json& document, Mutation& mutation) {
  const uint64_t how = mutation.draw(3);
  std::string text = text_of(how > 0 ? mutation.json(document) : document);
  return how < 2 ? mutation.bytes(std::move(text)) : text;
}

std::string with_length(const std::string& json) {
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(json.size() >> (8 * i));
  return length + json;
}

FuzzTarget safetensors(const ScratchFolder& folder) {
  const std::string path = folder / "one/model.safetensors";
  std::filesystem::create_directories(folder / "one");
  core::write_safetensors(path,
                          {{"a", at::ones({3, 5})},
                           {"b", at::ones({7}, at::kBFloat16)},
                           {"c", at::ones({2, 2}, at::kFloat8_e4m3fn)},
                           {"d", at::ones({4}, at::kBool)},
                           {"empty", at::empty({0, 3})}},
                          {{"format", "pt"}});
  const std::string original = read_bytes(path);
  size_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(original[i]);
  const auto header = ordered_json::parse(original.substr(8, length));
  const std::string data = original.substr(8 + length);
  const auto write = [=](Mutation& mutation) {
    // The header with a length that fits it, or any byte of the file.
    const bool whole = mutation.draw(4) == 0;
    write_bytes(path,
                whole ? mutation.bytes(original) : with_length(mutated(header, mutation)) + data);
  };
  return {"safetensors", write, [path] {
            const core::SafetensorsFile file(path);
            for (const auto& [name, entry] : file.entries()) file.tensor(name);
          }};
}

FuzzTarget index(const ScratchFolder& folder) {
  const std::string dir = folder / "sharded", path = dir + "/model.safetensors.index.json";
  std::filesystem::create_directories(dir);
  ordered_json document{{"metadata", {{"total_size", 32}}}};
  for (int i = 1; i <= 3; ++i) {
    const std::string shard = fmt::format("model-{:05}-of-00003.safetensors", i);
    std::vector<core::NamedTensor> tensors;
    for (int j = 0; j < 3; ++j) {
      const std::string name = fmt::format("model.layers.{}.w{}", i, j);
      tensors.push_back({name, at::ones({2})});
      document["weight_map"][name] = shard;
    }
    core::write_safetensors(dir + "/" + shard, tensors);
  }
  return {"index",
          [=](Mutation& mutation) { write_bytes(path, mutated(document, mutation)); },
          [dir] { core::read_safetensors(dir); }};
}

/// Configs of all architectures, as the reference wrote them, one of them with yarn.
std::vector<ordered_json> configs() {
  std::vector<ordered_json> all;
  for (const char* kind : {"deepseek_v3", "qwen"})
    for (const auto& folder : cases(kind))
      all.push_back(ordered_json::parse(read_bytes((folder / "config.json").string())));
  all[0]["quantization_config"] = {{"quant_method", "fp8"},
                                   {"fmt", "e4m3"},
                                   {"activation_scheme", "dynamic"},
                                   {"weight_block_size", {128, 128}}};
  all[0]["eos_token_id"] = {1, 2};
  return all;
}

FuzzTarget config(const ScratchFolder& folder) {
  const std::string dir = folder / "config", path = folder.write("config/config.json", "");
  core::write_safetensors(dir + "/model.safetensors", {{"model.norm.weight", at::ones({64})}});
  return {"config",
          [=, all = configs()](Mutation& mutation) {
            write_bytes(path, mutated(all[mutation.draw(all.size())], mutation));
          },
          [path, dir] {
            // What is accepted can be written again and means the same.
            auto model = core::read_hf_config(path);
            if (!model.uses_mla() && model.head_dim == 0)  // the same in other words
              model.head_dim = model.hidden_size / model.num_attention_heads;
            const auto again = core::model_config_from_hf(core::model_config_to_hf(model), "again");
            // However large a model it describes, its weights are compared with what is there.
            if (rl::weight_faults(model, *rl::open_hugging_face_weights(dir)).empty())
              throw Error("a model of one tensor");
            if (model == again) return;
            std::string differing;
            core::Config ours, theirs;
            ours.model = model, theirs.model = again;
            for (const core::Field& field : core::fields())
              if (core::value_text(field, ours) != core::value_text(field, theirs))
                differing += field.key + " ";
            throw Error("another model when written again: " + differing);
          }};
}

FuzzTarget generation_config(const ScratchFolder& folder) {
  const std::string dir = folder / "generation";
  folder.write("generation/config.json", text_of(configs()[0]));
  const ordered_json document{{"bos_token_id", 0},
                              {"eos_token_id", {1, 2, 3}},
                              {"do_sample", true},
                              {"temperature", 0.6},
                              {"top_p", 0.95},
                              {"transformers_version", "5.23.0"}};
  return {"generation_config",
          [=](Mutation& mutation) {
            write_bytes(dir + "/generation_config.json", mutated(document, mutation));
          },
          [dir] { core::read_hf_config(dir); }};
}

/// The first 400 tokens of a tokenizer, with the merges among them.
ordered_json cut_tokenizer(const std::filesystem::path& path) {
  constexpr int64_t kTokens = 400;
  auto document = ordered_json::parse(read_bytes(path.string()));
  ordered_json vocabulary = ordered_json::object(), merges = ordered_json::array();
  std::map<std::string, int64_t> kept;
  for (const auto& [token, id] : document["model"]["vocab"].items())
    if (id < kTokens) kept[token] = id;
  for (const auto& [token, id] : kept) vocabulary[token] = id;
  for (const auto& merge : document["model"]["merges"])
    if (merge.is_array() && kept.contains(merge[0]) && kept.contains(merge[1]) &&
        kept.contains(merge[0].get<std::string>() + merge[1].get<std::string>()))
      merges.push_back(merge);
  document["model"]["vocab"] = std::move(vocabulary);
  document["model"]["merges"] = std::move(merges);
  ordered_json added = ordered_json::array();
  for (const auto& token : document["added_tokens"])
    if (token["id"] < kTokens) added.push_back(token);
  document["added_tokens"] = std::move(added);
  return document;
}

FuzzTarget tokenizer(const ScratchFolder& folder) {
  const std::string path = folder.write("tokenizer/tokenizer.json", "");
  std::vector<ordered_json> all;
  for (const auto& kind : cases("tokenizer")) {
    all.push_back(cut_tokenizer(kind / "tokenizer.json"));
    core::Tokenizer::parse(text_of(all.back()), kind.string());  // a good one, before it is changed
  }
  return {"tokenizer",
          [=](Mutation& mutation) {
            ordered_json document = all[mutation.draw(all.size())];
            // The vocabulary is most of the file: half of the time only the rest is changed.
            const bool small = mutation.draw(2) == 0;
            if (!small) return write_bytes(path, mutated(document, mutation));
            const ordered_json model = document["model"];
            document["model"] = "MODEL";
            std::string text = mutated(document, mutation);
            if (const size_t at = text.find("\"MODEL\""); at != text.npos)
              text.replace(at, 7, text_of(model));
            write_bytes(path, text);
          },
          [path] {
            const auto tokenizer = core::Tokenizer::load(path);
            for (const char* text :
                 {"",
                  "Hello  world\n\n 12345's caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd <|end|>",
                  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
                  "\xff\xfe"})
              tokenizer.decode(tokenizer.encode(text));
            core::Tokenizer::parse(tokenizer.to_json(), "again");
          }};
}

}  // namespace

std::vector<FuzzTarget> fuzz_targets(const ScratchFolder& folder) {
  return {safetensors(folder),
          index(folder),
          config(folder),
          generation_config(folder),
          tokenizer(folder)};
}

}  // namespace cohort::tests
