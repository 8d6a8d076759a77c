#include "rl/log_likelihood.h"

#include "core/base/error.h"
#include "rl/model_folder.h"
#include "rl/multiple_choice.h"
#include "rl/perplexity.h"
#include "rl/white_space.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/moe/reference_model.h"
#include "tests/rl/solvable.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Contains;
namespace fs = std::filesystem;

namespace {

/// The cases here, and those of COHORT_PARITY_DIR if it has any.
std::vector<fs::path> reference_cases() {
  std::vector<fs::path> found;
  const char* chosen = std::getenv("COHORT_PARITY_DIR");
  for (const fs::path& root :
       {fs::path(COHORT_SOURCE_DIR "/tests/fixtures"), fs::path(chosen ? chosen : "")})
    if (!root.empty() && fs::is_directory(root / "lm_eval"))
      for (const auto& entry : fs::directory_iterator(root / "lm_eval"))
        found.push_back(entry.path());
  REQUIRE_FALSE(found.empty());
  return found;
}

struct Loaded {
  distributed::Mesh mesh = distributed::make_local_mesh();
  rl::ModelFolder folder;
  core::Tokenizer tokenizer;
  moe::Transformer model;

  explicit Loaded(const fs::path& path)
      : folder(rl::open_model_folder(path.string())),
        tokenizer(folder.tokenizer()),
        model(folder.config, mesh.ep, 1, at::kFloat) {
    rl::load_model_weights(folder, model);
  }
};

std::vector<std::string> documents_of(const fs::path& path) {
  std::vector<std::string> documents;
  std::ifstream file(path / "documents.jsonl");
  for (std::string line; std::getline(file, line);)
    documents.push_back(nlohmann::json::parse(line)["text"]);
  return documents;
}

std::string refusal(const tests::ScratchFolder& folder, const std::string& text) {
  folder.write("questions.jsonl", text);
  try {
    rl::read_choice_questions(folder / "questions.jsonl");
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("perplexities are those of lm-evaluation-harness", "[rl-log-likelihood][parity]") {
  for (const fs::path& path : reference_cases()) {
    INFO(path);
    Loaded loaded(path);
    const auto expected = tests::read_json(path / "expected.json");
    const auto documents = documents_of(path);
    const auto all = rl::perplexity(loaded.model, loaded.mesh, loaded.tokenizer, documents, {});
    const auto& figures = expected["perplexity"];
    CHECK(all.word_perplexity() == Approx(figures["word_perplexity"].get<double>()).epsilon(2e-5));
    CHECK(all.byte_perplexity() == Approx(figures["byte_perplexity"].get<double>()).epsilon(1e-6));
    CHECK(all.bits_per_byte() == Approx(figures["bits_per_byte"].get<double>()).epsilon(1e-6));
    CHECK(all.token_perplexity() ==
          Approx(std::exp(-all.log_likelihood / static_cast<double>(all.tokens))));
    for (size_t i = 0; i < documents.size(); ++i) {
      INFO("document " << i);
      const auto one = rl::perplexity(
          loaded.model, loaded.mesh, loaded.tokenizer, std::span(documents).subspan(i, 1), {});
      CHECK(one.log_likelihood ==
            Approx(expected["document_log_likelihoods"][i].get<double>()).epsilon(2e-6));
    }
  }
}

TEST_CASE("multiple choice is that of lm-evaluation-harness", "[rl-log-likelihood][parity]") {
  size_t likeliest = 0;
  for (const fs::path& path : reference_cases()) {
    INFO(path);
    Loaded loaded(path);
    const auto expected = tests::read_json(path / "expected.json");
    const auto questions = rl::read_choice_questions((path / "questions.jsonl").string());
    rl::MultipleChoiceOptions options;
    options.add_bos = expected["add_bos"].get<bool>();
    const auto result =
        rl::multiple_choice(loaded.model, loaded.mesh, loaded.tokenizer, questions, options);
    REQUIRE(result.log_likelihoods.size() == expected["log_likelihoods"].size());
    for (size_t i = 0; i < questions.size(); ++i) {
      INFO("question " << i << ": " << questions[i].query);
      REQUIRE(result.log_likelihoods[i].size() == expected["log_likelihoods"][i].size());
      for (size_t j = 0; j < questions[i].choices.size(); ++j)
        CHECK(result.log_likelihoods[i][j] ==
              Approx(expected["log_likelihoods"][i][j].get<double>()).epsilon(5e-6));
    }
    const auto json = rl::multiple_choice_json(result);
    for (const auto& [name, value] : expected["multiple_choice"].items()) {
      INFO(name);
      if (json.contains(name))  // some harnesses add the sample's length
        CHECK(json[name].get<double>() == Approx(value.get<double>()).margin(1e-12));
    }
    CHECK(json.contains("acc_norm_stderr"));
    likeliest += static_cast<size_t>(result.exact_match.value * 24);
  }
  CHECK(likeliest > 0);
}

TEST_CASE("windows predict each token once, from the window before it", "[rl-log-likelihood]") {
  std::vector<int32_t> tokens(10);
  for (int32_t i = 0; i < 10; ++i) tokens[i] = i;
  using Ids = std::vector<int32_t>;
  const auto whole = rl::rolling_windows(tokens, 99, 4, 4);
  REQUIRE(whole.size() == 3);
  CHECK((whole[0].context == Ids{99} && whole[0].continuation == Ids{0, 1, 2, 3}));
  CHECK((whole[1].context == Ids{3} && whole[1].continuation == Ids{4, 5, 6, 7}));
  CHECK((whole[2].context == Ids{5, 6, 7} && whole[2].continuation == Ids{8, 9}));
  const auto strided = rl::rolling_windows(tokens, 99, 4, 2);
  REQUIRE(strided.size() == 4);
  CHECK((strided[1].context == Ids{1, 2, 3} && strided[1].continuation == Ids{4, 5}));
  CHECK((strided[3].context == Ids{5, 6, 7} && strided[3].continuation == Ids{8, 9}));
  CHECK(rl::rolling_windows(std::span(tokens).first(3), 99, 4, 1).size() == 1);
  CHECK(rl::rolling_windows({}, 99, 4, 4).empty());
  for (const int64_t stride : {1, 2, 3, 4}) {
    Ids predicted;
    for (const auto& one : rl::rolling_windows(tokens, 99, 4, stride)) {
      predicted.insert(predicted.end(), one.continuation.begin(), one.continuation.end());
      CHECK(one.context.size() + one.continuation.size() <= 5);
    }
    CHECK(predicted == tokens);
  }
}

TEST_CASE("white space before a continuation is scored with it", "[rl-log-likelihood]") {
  const core::Tokenizer tokenizer = tests::byte_tokenizer();
  const auto request = [&](const char* context, const char* continuation, bool bos = false) {
    return rl::likelihood_request(tokenizer, context, continuation, 0, bos);
  };
  const auto moved = request("ab \n", "cd");
  CHECK(tokenizer.decode(moved.context) == "ab");
  CHECK(tokenizer.decode(moved.continuation) == " \ncd");
  const auto empty = request("", "cd");
  CHECK(empty.context == std::vector<int32_t>{0});
  CHECK(tokenizer.decode(empty.continuation) == "cd");
  CHECK(request(" ", "cd").context == std::vector<int32_t>{0});
  const auto own = request("", "<|begin|>cd");
  CHECK((own.context == std::vector<int32_t>{0} && tokenizer.decode(own.continuation) == "cd"));
  CHECK(request("ab", "cd", true).context.size() == request("ab", "cd").context.size() + 1);
  CHECK(request("ab", "").continuation.empty());
  // An ideographic space is white, as in Python.
  CHECK(tokenizer.decode(request("ab\u3000", "c").context) == "ab");
}

TEST_CASE("words are counted as Python splits them", "[rl-log-likelihood]") {
  CHECK(rl::count_words("one two\t three\n\nfour") == 4);
  CHECK(rl::count_words(" one ") == 3);
  CHECK(rl::count_words("") == 1);
  CHECK(rl::count_words("a\u00a0b\u2003c\u3000\u2028d\x1f e") == 5);
  CHECK(rl::count_words("a\u200bb") == 1);  // a zero-width space is none
  CHECK(rl::trailing_white_space("ab \u00a0") == 2);
  CHECK(rl::trailing_white_space("a b") == 3);
  CHECK(rl::trailing_white_space(" ") == 0);
}

TEST_CASE("a smaller stride gives tokens more context and counts the same ones",
          "[rl-log-likelihood]") {
  Loaded loaded(reference_cases().front());
  const auto documents = documents_of(reference_cases().front());
  const auto run = [&](int64_t window, int64_t stride) {
    return rl::perplexity(loaded.model, loaded.mesh, loaded.tokenizer, documents, {window, stride});
  };
  const auto wide = run(8, 8), dense = run(8, 1);
  CHECK(wide.tokens == dense.tokens);
  CHECK(wide.log_likelihood != dense.log_likelihood);
  CHECK(run(0, 0).window == loaded.folder.config.max_position_embeddings);
  CHECK_THROWS_WITH(run(8, 9), Contains("stride of 9"));
  CHECK_THROWS_WITH(run(49, 1), Contains("exceeds the model's 48 positions"));
  const std::vector<std::string> nothing{""};
  CHECK_THROWS_WITH(rl::perplexity(loaded.model, loaded.mesh, loaded.tokenizer, nothing, {}),
                    Contains("no token"));
}

TEST_CASE("worked examples stand before a question, but not before themselves",
          "[rl-log-likelihood]") {
  Loaded loaded(reference_cases().front());
  const std::vector<rl::ChoiceQuestion> questions{{"Is it", {"so", "not"}, {1}, "q:1"}};
  const std::vector<rl::ChoiceQuestion> examples{questions[0], {"Are", {"we", "they"}, {0}, "e:2"}};
  const auto score = [&](const std::vector<rl::ChoiceQuestion>& asked,
                         std::span<const rl::ChoiceQuestion> before) {
    rl::MultipleChoiceOptions options;
    options.examples = before;
    return rl::multiple_choice(loaded.model, loaded.mesh, loaded.tokenizer, asked, options)
        .log_likelihoods[0];
  };
  const auto with = score(questions, examples);
  CHECK(with == score({{"Are we\n\nIs it", {"so", "not"}, {1}, ""}}, {}));
  CHECK(with != score(questions, {}));
}

TEST_CASE("a question that is none is named with its line", "[rl-log-likelihood]") {
  const tests::ScratchFolder folder;
  const std::string good = R"({"query": "a", "choices": ["b", "c"], "gold": 1})"
                           "\n";
  CHECK(refusal(folder, good) == "");
  const std::pair<const char*, const char*> cases[] = {
      {"{", "questions.jsonl:2: is no JSON object"},
      {"[1]", "questions.jsonl:2: is no JSON object"},
      {R"({"query": "a", "choices": ["b"]})", "has no field \"gold\""},
      {R"({"query": 3, "choices": ["b"], "gold": 0})", "\"query\" is no text"},
      {R"({"query": "a", "choices": [], "gold": 0})", "\"choices\" are no list"},
      {R"({"query": "a", "choices": [""], "gold": 0})", "\"choices\" are no list"},
      {R"({"query": "a", "choices": ["b"], "gold": 1})", "none of the 1 choices"},
      {R"({"query": "a", "choices": ["b"], "gold": -1})", "none of the 1 choices"},
      {R"({"query": "a", "choices": ["b"], "gold": "c"})", "none of the 1 choices"},
      {R"({"query": "a", "choices": ["b"], "gold": []})", "\"gold\" is empty"},
      {R"({"query": "a", "choices": ["b"], "gold": 0.5})", "none of the 1 choices"},
  };
  for (const auto& [line, right] : cases) {
    const std::string said = refusal(folder, good + line + "\n");
    INFO(line << ": " << said);
    CHECK_THAT(said, Contains(right));
    CHECK(said.find('\n') == std::string::npos);
  }
  CHECK_THAT(refusal(folder, "\n"), Contains("holds no question"));
  folder.write("text.jsonl", R"({"query": "a", "choices": ["b", "c"], "gold": "c"})");
  CHECK(rl::read_choice_questions(folder / "text.jsonl")[0].gold == std::vector<int64_t>{1});
  folder.write("list.jsonl", R"({"query": "a", "choices": ["b", "c"], "gold": [0, 1]})");
  CHECK(rl::read_choice_questions(folder / "list.jsonl")[0].gold == std::vector<int64_t>{0, 1});
}
