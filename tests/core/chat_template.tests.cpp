// Chat templates against what transformers renders, and what they may not do.
#include "core/chat/chat_template.h"

#include <fstream>
#include <random>

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/fixtures.h"

using namespace cohort;
using namespace cohort::core;
using nlohmann::ordered_json;

namespace {

const ordered_json kMessages = ordered_json::parse(
    R"([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "more"}, {"role": "assistant", "content": "so"}])");

/// The text, or the message of the InputError.
std::string rendered(const std::string& text,
                     const ordered_json& messages = kMessages,
                     bool prompt = false,
                     const ordered_json& variables = {}) {
  try {
    return ChatTemplate::parse(text, "t").render(messages, prompt, variables);
  } catch (const InputError& error) {
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return std::string("refused: ") + error.what();
  }
}

bool is_refused(const std::string& text) { return text.rfind("refused: t", 0) == 0; }

std::vector<ordered_json> fixtures(const char* part) {
  std::vector<ordered_json> out;
  for (const auto& path : tests::cases("chat")) {
    ordered_json file = ordered_json::parse(std::ifstream(path));
    if (!file.contains(part)) continue;
    file["path"] = path.filename().string();
    out.push_back(std::move(file));
  }
  REQUIRE(!out.empty());
  return out;
}

std::string trained_text(const std::vector<ChatSpan>& spans) {
  std::string out;
  for (const ChatSpan& span : spans)
    if (span.trained) out += "[" + span.text + "]";
  return out;
}

}  // namespace

TEST_CASE("Templates of real models render as transformers renders them", "[core-chat][parity]") {
  for (const ordered_json& file : fixtures("cases"))
    for (const ordered_json& one : file["cases"]) {
      INFO(file["path"] << " " << one["name"] << " " << one["add_generation_prompt"]);
      const std::string out = rendered(
          file["template"], one["messages"], one["add_generation_prompt"], one["variables"]);
      if (one.contains("fails")) {
        CHECK(is_refused(out));
        continue;
      }
      CHECK(out == one["expected"].get<std::string>());
      if (!one.contains("trained")) continue;
      std::string expected;
      for (const auto& text : one["trained"]) expected += "[" + text.get<std::string>() + "]";
      const auto spans = ChatTemplate::parse(file["template"].get<std::string>())
                             .render_spans(one["messages"], one["variables"]);
      CHECK(trained_text(spans) == expected);
    }
}

TEST_CASE("Expressions and white space come out as Jinja has them", "[core-chat][parity]") {
  for (const ordered_json& file : fixtures("expressions"))
    for (const ordered_json& one : file["expressions"]) {
      INFO(one["template"]);
      const std::string out = rendered(one["template"], file["variables"]["messages"]);
      if (one.contains("fails"))
        CHECK(is_refused(out));
      else
        CHECK(out == one["expected"].get<std::string>());
    }
}

TEST_CASE("What a template may not say is named with its line", "[core-chat]") {
  const auto says = [](const std::string& text, const std::string& expected) {
    const std::string out = rendered(text);
    INFO(text << " -> " << out);
    CHECK(out.find(expected) != out.npos);
  };
  says("a\nb {% include 'x' %}", "t:2: the tag {% include %} is not known");
  says("\n\n{{ x | nope }}", "t:3: the filter `nope` is not known");
  says("{{ x is nope }}", "t:1: the test `nope` is not known");
  says("{% if x %}\n", "t:1: the block of line 1 has no {% endif %}");
  says("a\n{{ raise_exception('roles must\nalternate') }}", "refuses: roles must\\nalternate");
  says("{{ 'x'.format(1) }}", "the method `format` of a str is not known");
  says("{{ x.y }}", "t:1: `x` is undefined: it has no attribute `y`");
  says("{{ messages.append(1) }}", "would change a list");
  says("{{ lipsum() }}", "`lipsum` is not known");
  says("{{ ''.__class__ }}", "begins with _");
  says("{{ '%s' % 1 }}", "want `~`");
  says("{% for x in messages recursive %}{% endfor %}", "recursive");
  says("{{ 9223372036854775807 + 1 }}", "more than 64 bits");
  CHECK(rendered("x", ordered_json::object()).find("wants a list of messages") !=
        std::string::npos);
  CHECK(rendered("x", ordered_json::parse(R"([{"content": 1}])")).find("messages[0]") !=
        std::string::npos);
}

TEST_CASE("A hostile template ends soon and within bounds", "[core-chat]") {
  std::string nested = "{{ ", chain = "{{ 1", filters = "{{ x", blocks, data = "{{ ",
              maps = "{{ 'a' | map(", names;
  for (int i = 0; i < 100000; ++i) {
    nested += "(";
    chain += " + 1";
    filters += " | trim";
    blocks += "{% if 1 %}";
    data += "[";
    maps += "'map', ";
    if (i < 20000) names += "{% set x" + std::to_string(i) + "=1 %}";
  }
  for (const std::string& text :
       {nested + " }}",
        chain + " }}",
        filters + " }}",
        blocks,
        data + "]",
        maps + "'trim') | list }}",
        names,
        std::string(
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
        std::string("{% set ns = namespace(s='aaaaaaaa') %}{% for a in range(99999) %}{% set ns.s "
                    "= ns.s + ns.s %}{% endfor %}"),
        std::string("{% set ns = namespace(s=[1]) %}{% for a in range(99999) %}{% set ns.s = ns.s "
                    "+ ns.s %}{% endfor %}"),
        std::string("{% set ns = namespace(s=[]) %}{% for a in range(99999) %}{% set ns.s = [ns.s, "
                    "ns.s] %}{% endfor %}"),
        std::string("{% set ns = namespace(s=[]) %}{% for a in range(90) %}{% set ns.s = [ns.s, "
                    "ns.s] %}{% endfor %}{{ ns.s == ns.s }}{{ ns.s | tojson }}"),
        std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        std::string("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"),
        std::string("{{ 'a' * 99999999999 }}"),
        std::string("{{ [1] * 99999999999 }}"),
        std::string("{{ 2 ** 999999999999 }}"),
        std::string(
            "{% for a in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' "
            "* 99999 }}{% endfor %}"),
        std::string("{{ 'a'.zfill(99999999999) }}"),
        std::string("{{ 'x' | indent(99999999) }}"),
        std::string("{{ strftime_now('%99999999d') }}")}) {
    INFO(text.substr(0, 120));
    CHECK(is_refused(rendered(text)));
  }
  // A chain of namespaces is not a deep value: it is dropped without recursion.
  CHECK(rendered("{% set ns = namespace(s=1) %}{% for a in range(50000) %}"
                 "{% set ns.s = namespace(s=ns.s) %}{% endfor %}{% set ns.s = ns %}ok") == "ok");
  CHECK(rendered(std::string(size_t{2} << 20, 'a')).find("want 1048576 at most") !=
        std::string::npos);
}

TEST_CASE("Mutated templates neither crash nor hang", "[core-chat]") {
  std::vector<std::string> sources;
  for (const ordered_json& file : fixtures("cases")) sources.push_back(file["template"]);
  for (const ordered_json& file : fixtures("expressions"))
    for (const auto& one : file["expressions"]) sources.push_back(one["template"]);
  std::mt19937_64 random(7);
  int good = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = sources[random() % sources.size()];
    const std::string& other = sources[random() % sources.size()];
    for (uint64_t edits = 1 + random() % 3; edits > 0 && !text.empty(); --edits) {
      const size_t at = random() % text.size(), size = 1 + random() % 12;
      switch (random() % 4) {
        case 0:
          text.erase(at, size);
          break;
        case 1:
          text.insert(at, text.substr(random() % text.size(), size));
          break;
        case 2:
          text[at] = static_cast<char>(random());
          break;
        default:
          text.insert(at, other.substr(other.empty() ? 0 : random() % other.size(), size));
      }
    }
    (is_refused(rendered(text)) ? refused : good) += 1;
  }
  CHECK(good > 100);
  CHECK(refused > 100);
}

TEST_CASE("Spans tell what the assistant said", "[core-chat]") {
  const std::string plain =
      "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}";
  const auto spans = ChatTemplate::parse(plain).render_spans(kMessages);
  REQUIRE(spans.size() == 4);
  CHECK(trained_text(spans) == "[yo</>][so</>]");
  std::string all;
  for (const ChatSpan& span : spans) all += span.text;
  CHECK(all == rendered(plain));

  const std::string marked =
      "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}"
      "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% "
      "endfor %}";
  CHECK(trained_text(ChatTemplate::parse(marked).render_spans(kMessages)) == "[yo][so]");

  // History is rendered otherwise than the last turn: where it begins cannot be told.
  const std::string rewrites =
      "{% for m in messages %}{{ m.content if loop.last else '-' }}{% endfor %}";
  CHECK_THROWS_WITH(ChatTemplate::parse(rewrites, "t").render_spans(kMessages),
                    Catch::Contains("messages[1]") && Catch::Contains("{% generation %}"));
}

TEST_CASE("Values reach a template in the order of their keys", "[core-chat]") {
  const auto tools = ordered_json::parse(R"([{"z": 1, "a": {"y": 1.0, "b": null}}])");
  CHECK(rendered("{% for t in tools %}{{ t | tojson }}{% endfor %}",
                 kMessages,
                 false,
                 {{"tools", tools}}) == R"({"z": 1, "a": {"y": 1.0, "b": null}})");
  CHECK(rendered("{{ tools is none }}{{ add_generation_prompt }}", kMessages, true) == "TrueTrue");
  CHECK(rendered("{{ strftime_now('%Y') | int > 2000 }}") == "True");
}
