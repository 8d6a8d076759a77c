#include "cli/eval_likelihood.h"

#include <cmath>
#include <fstream>

#include "core/base/error.h"
#include "core/data/text_source.h"
#include "rl/multiple_choice.h"
#include "rl/perplexity.h"

namespace cohort::cli {
namespace {

using nlohmann::ordered_json;

core::TextOptions text_options(const LikelihoodOptions& options) {
  core::TextOptions out;
  out.field = options.field;
  out.split = options.split == "lines"         ? core::Split::lines
              : options.split == "blank_lines" ? core::Split::blank_lines
                                               : core::Split::file;
  return out;
}

std::vector<std::string> read_documents(const LikelihoodOptions& options) {
  const core::TextOptions text = text_options(options);
  std::vector<std::string> documents;
  for (const std::string& path : core::expand_inputs({options.data}, "")) {
    core::RecordReader reader(path, text);
    for (core::Record record; reader.next(record);) {
      core::parse_record(record, text);
      COHORT_CHECK_INPUT(record.broken.empty(), "{}:{}: {}", path, record.line, record.broken);
      documents.push_back(std::move(record.text));
      record = {};
    }
  }
  return documents;
}

void refuse(bool given, const char* option, const std::string& task) {
  COHORT_CHECK_INPUT(!given, "{}: task {} has no use for it; want it left out", option, task);
}

/// Of a model that is to be quantised: first as it is, then in few bits, and what that changes.
ordered_json perplexity_result(LoadedModel& loaded,
                               const ModelOptions& model,
                               const LikelihoodOptions& options) {
  const std::vector<std::string> documents = read_documents(options);
  const auto measure = [&] {
    return rl::perplexity(
        loaded.model, loaded.mesh, loaded.tokenizer, documents, {options.window, options.stride});
  };
  const rl::Perplexity whole = measure();
  const auto how = model.quantization();
  if (!how) return rl::perplexity_json(whole);
  loaded.quantization = moe::quantize(loaded.model, *how);
  const rl::Perplexity few_bits = measure();
  ordered_json result = rl::perplexity_json(few_bits), before = rl::perplexity_json(whole);
  for (const char* key : {"log_likelihood",
                          "token_perplexity",
                          "word_perplexity",
                          "byte_perplexity",
                          "bits_per_byte"})
    result["unquantized"][key] = before[key];
  result["token_perplexity_change"] = few_bits.token_perplexity() / whole.token_perplexity() - 1;
  result["bits_per_byte_change"] = few_bits.bits_per_byte() - whole.bits_per_byte();
  return result;
}

void save_likelihoods(const std::string& path,
                      const std::vector<rl::ChoiceQuestion>& questions,
                      const rl::MultipleChoice& result) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  COHORT_CHECK_INPUT(file.good(), "{}: cannot be written; want a file for --save", path);
  for (size_t i = 0; i < questions.size(); ++i)
    file << ordered_json{{"query", questions[i].query},
                         {"choices", questions[i].choices},
                         {"gold", questions[i].gold},
                         {"log_likelihoods", result.log_likelihoods[i]}}
                .dump(-1, ' ', false, ordered_json::error_handler_t::replace)
         << "\n";
  file.flush();
  COHORT_CHECK(file.good(), "{}: could not be written to its end", path);
}

ordered_json multiple_choice_result(LoadedModel& loaded,
                                    const LikelihoodOptions& options,
                                    const std::string& save) {
  const auto questions = rl::read_choice_questions(options.data);
  std::vector<rl::ChoiceQuestion> examples;
  if (options.few_shot > 0) {
    COHORT_CHECK_INPUT(!options.few_shot_file.empty(),
                       "--few-shot: the examples have to come from somewhere; want --few-shot-file "
                       "FILE.jsonl too");
    examples = rl::read_choice_questions(options.few_shot_file);
    COHORT_CHECK_INPUT(static_cast<int64_t>(examples.size()) >= options.few_shot,
                       "{}: holds {} examples, --few-shot asks for {}; want fewer",
                       options.few_shot_file,
                       examples.size(),
                       options.few_shot);
    examples.resize(static_cast<size_t>(options.few_shot));
  }
  rl::MultipleChoiceOptions how;
  how.delimiter = options.delimiter;
  how.add_bos = options.add_bos;
  how.window = options.window;
  how.examples = examples;
  const auto result =
      rl::multiple_choice(loaded.model, loaded.mesh, loaded.tokenizer, questions, how);
  if (!save.empty() && loaded.mesh.shape.rank == 0) save_likelihoods(save, questions, result);
  ordered_json json = rl::multiple_choice_json(result);
  json["few_shot"] = options.few_shot;
  return json;
}

void print_text(const ordered_json& result) {
  for (const auto& [key, value] : result.items()) {
    if (value.is_string())
      fmt::print("{:<24} {}\n", key, value.get<std::string>());
    else if (value.is_number_float())
      fmt::print("{:<24} {:.6g}\n", key, value.get<double>());
    else
      fmt::print("{:<24} {}\n", key, value.dump());
  }
}

}  // namespace

void LikelihoodOptions::add_to(CLI::App& app) {
  app.add_option("--data",
                 data,
                 "perplexity: text or JSONL file, or a folder of them; multiple_choice: JSONL of "
                 "query, choices, gold")
      ->type_name("FILE");
  app.add_option("--field", field, "perplexity: of a JSON line, the text")->capture_default_str();
  app.add_option("--split", split, "perplexity: how plain text becomes documents")
      ->capture_default_str()
      ->check(CLI::IsMember({"file", "blank_lines", "lines"}));
  app.add_option("--window",
                 window,
                 "perplexity, multiple_choice: tokens that the model sees at most; default: its "
                 "max_position_embeddings")
      ->check(CLI::PositiveNumber);
  app.add_option("--stride",
                 stride,
                 "perplexity: tokens that each window predicts anew; default: the window, as "
                 "lm-evaluation-harness has it")
      ->check(CLI::PositiveNumber);
  app.add_option("--few-shot",
                 few_shot,
                 "Worked examples before each question, the first ones of --few-shot-file")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--few-shot-file",
                 few_shot_file,
                 "JSONL of them, in the form of the task's own; default: its training problems")
      ->type_name("FILE");
  app.add_option("--delimiter", delimiter, "multiple_choice: between query and choice")
      ->capture_default_str();
  app.add_flag("--add-bos", add_bos, "multiple_choice: the begin token before every query");
}

bool is_likelihood_task(const std::string& task) {
  return task == "perplexity" || task == "multiple_choice";
}

void refuse_likelihood_options(const LikelihoodOptions& options, const std::string& task) {
  refuse(!options.data.empty(), "--data", task.empty() ? "of the config" : task);
  refuse(options.window > 0, "--window", task);
  refuse(options.stride > 0, "--stride", task);
  refuse(options.add_bos, "--add-bos", task);
}

int evaluate_likelihood(const std::string& task,
                        const ModelOptions& model,
                        const LikelihoodOptions& options,
                        const std::string& save,
                        bool json) {
  COHORT_CHECK_INPUT(
      !options.data.empty(), "--data: task {} scores given texts; want --data FILE", task);
  const bool perplexity = task == "perplexity";
  if (perplexity) {
    refuse(options.few_shot > 0 || !options.few_shot_file.empty(), "--few-shot", task);
    refuse(options.add_bos, "--add-bos", task);
    refuse(!save.empty(), "--save", task);
  } else {
    refuse(options.stride > 0, "--stride", task);
  }
  ModelOptions as_read = model;
  if (perplexity) as_read.quantize = "none";  // it is measured both ways
  LoadedModel loaded(as_read);
  ordered_json result{{"task", task}, {"model", loaded.folder.path}, {"data", options.data}};
  result.update(perplexity ? perplexity_result(loaded, model, options)
                           : multiple_choice_result(loaded, options, save));
  add_quantization(model, loaded.quantization, result);
  if (loaded.mesh.shape.rank != 0) return 0;
  if (json)
    fmt::print("{}\n", result.dump());
  else
    print_text(result);
  return 0;
}

}  // namespace cohort::cli
