#include <cmath>

#include "core/base/error.h"
#include "core/metrics/curve.h"
#include "core/metrics/metrics.h"
#include "core/metrics/report_data.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using nlohmann::ordered_json;
using tests::ScratchFolder;

namespace {

/// The JSON in the page, as a browser would read it.
ordered_json run_of(const std::string& page) {
  const std::string start = "id=\"run\">";
  const size_t from = page.find(start) + start.size();
  return ordered_json::parse(page.substr(from, page.find("</script>", from) - from));
}

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("A report holds the curves, loads and figures of the run", "[core-metrics]") {
  ScratchFolder dir;
  {
    core::RunLog log(dir / "run", 4, -1);
    for (int64_t step = 1; step <= 4; ++step) {
      ordered_json scalars = {{"loss", 5.0 - static_cast<double>(step)},
                              {"tokens", 100 * step},
                              {"tokens_per_second", 10.0 * static_cast<double>(step)},
                              {"max_vio", 0.5},
                              {"skipped_steps", step >= 3 ? 1 : 0},
                              {"unheard_of", step}};
      if (step == 2) scalars["val_loss"] = 2.0, scalars["val_bits_per_byte"] = 1.5;
      if (step == 4) scalars["val_loss"] = 2.5, scalars["val_bits_per_byte"] = 1.8;
      if (step == 3) scalars["grad_norm"] = std::nan("");
      log.step(step, scalars);
      log.expert_loads(step, {{"model.layers.1", {1, 2, 0, 1}}});
    }
  }
  dir.write("run/summary.json", R"({"gzip_bits_per_byte": 2.58, "wall_seconds": 7})");
  dir.write("run/checkpoints/step-4/model.safetensors", "12345");
  const std::string path = core::write_report(dir / "run");
  CHECK(path == dir / "run/report.html");
  const ordered_json run = run_of(dir.read("run/report.html"));
  CHECK(run["name"] == "run");
  CHECK(run["curves"]["loss"] == ordered_json({{"x", {1, 2, 3, 4}}, {"y", {4., 3., 2., 1.}}}));
  CHECK(run["curves"].contains("unheard_of"));
  const ordered_json& figures = run["figures"];
  CHECK(figures["step"] == 4);
  CHECK(figures["total_steps"] == 4);
  CHECK(figures["loss"] == 1.0);
  CHECK(figures["val_loss"] == 2.0);
  CHECK(figures["val_loss_step"] == 2);
  CHECK(figures["val_bits_per_byte"] == 1.5);
  CHECK(figures["gzip_bits_per_byte"] == 2.58);
  CHECK(figures["wall_seconds"] == 7);
  CHECK(figures["tokens"] == 400);
  CHECK(figures["tokens_per_second"] == 30.0);
  CHECK(figures["skipped_steps"] == 1);
  // Mean load 1: 1x is 128, 2x is 160, no token is 0.
  CHECK(run["loads"]["layers"][0]["data"].get<std::string>().substr(0, 6) ==
        core::base64("\x80\xa0" + std::string(1, '\0') + "\x80").substr(0, 5) + "I");
  CHECK(run["checkpoints"] == ordered_json::parse(R"([{"name": "step-4", "bytes": 5}])"));
  REQUIRE(run["events"].size() == 2);
  CHECK(run["events"][1]["event"] == "skipped");
  CHECK(run["events"][1]["text"] == "not finite: grad_norm");
}

TEST_CASE("A report loads nothing from anywhere", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("run/metrics.jsonl", "{\"step\":1,\"loss\":2}\n");
  core::write_report(dir / "run");
  const std::string page = dir.read("run/report.html");
  for (const char* reference : {"http:", "https:", "src=", "href=", "@import", "//cdn", "fetch("})
    CHECK(count(page, reference) == 0);
  CHECK(count(page, "url(") == 1);  // a clip path of the page itself
  CHECK(count(page, "url(#") == 1);
  CHECK(count(page, "default-src 'none'") == 1);
}

TEST_CASE("Text of a run cannot break its report", "[core-metrics]") {
  ScratchFolder plain, evil;
  plain.write("run/metrics.jsonl", "{\"step\":1,\"loss\":2}\n");
  const std::string nasty = "</script><script>alert(1)</script><!-- \xff @RUN@ @STYLE@ @SCRIPT@";
  const std::string quoted = R"("</script><script>alert(1)</script><!-- @RUN@ @SCRIPT@")";
  evil.write("run/metrics.jsonl", "{\"step\":1,\"loss\":2," + quoted + ":3}\n");
  evil.write("run/experts.jsonl", "{\"step\":1," + quoted + ":[1,2]}\n");
  evil.write("run/config.yaml", nasty);
  evil.write("run/data_card.json", "{" + quoted + ":" + quoted + "}");
  evil.write("run/summary.json", "{ broken " + nasty);
  core::write_report(plain / "run");
  core::write_report(evil / "run");
  const std::string page = evil.read("run/report.html");
  CHECK(count(page, "<script") == count(plain.read("run/report.html"), "<script"));
  CHECK(count(page, "</script>") == 2);
  CHECK(count(page, "<!--") == 0);
  const ordered_json run = run_of(page);
  CHECK(run["config"].get<std::string>().starts_with("</script><script>alert(1)"));
  CHECK(run["data_card"].begin().key() == ordered_json::parse(quoted).get<std::string>());
}

TEST_CASE("A run without steps, of one step, or without experts has a report", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("no_log/config.yaml", "run: {}\n");
  CHECK(core::report_data(dir / "no_log")["curves"].empty());
  dir.write("empty/metrics.jsonl", "");
  CHECK(core::report_data(dir / "empty")["curves"].empty());
  dir.write("one/metrics.jsonl", "{\"step\":1,\"loss\":2.0}\n");
  const ordered_json one = core::report_data(dir / "one/");
  CHECK(one["name"] == "one");
  CHECK(one["curves"]["loss"]["y"] == ordered_json({2.0}));
  CHECK(one["loads"].is_null());
  CHECK(one["config"].is_null());
  for (const char* name : {"no_log", "empty", "one"}) CHECK_NOTHROW(core::write_report(dir / name));
}

TEST_CASE("A torn last line is passed over, broken ones are counted", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("run/metrics.jsonl",
            "{\"step\":1,\"loss\":2}\n{\"st\n7\n{\"step\":2,\"loss\":1}\n{\"step\":3,\"l");
  const ordered_json run = core::report_data(dir / "run");
  CHECK(run["figures"]["step"] == 2);
  CHECK(run["events"].back()["text"] == "2 lines of metrics.jsonl");
}

TEST_CASE("Lines of other shapes than a run writes do not stop a report", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("run/metrics.jsonl",
            "{\"step\":\"x\"}\n{\"step\":1e300,\"loss\":1}\n{\"step\":-4,\"loss\":1}\n"
            "{\"step\":2,\"loss\":{\"a\":1}}\n{\"step\":3,\"loss\":1e308,\"a\":[1]}\n");
  dir.write(
      "run/experts.jsonl",
      "{\"step\":1,\"l\":[1,\"x\",-5],\"m\":[]}\n{\"step\":2,\"l\":[1,2,3,4],\"q\":[[1],2]}\n");
  dir.write("run/events.jsonl", "[1]\n{\"step\":[1],\"event\":3,\"time\":7}\n{}\n");
  dir.write("run/data_card.json", "[[1,{\"a\":[1,{\"b\":null}]}],\"x\"]");
  const ordered_json run = core::report_data(dir / "run");
  CHECK(run["figures"]["step"] == 3);
  CHECK(run["curves"]["loss"]["x"] == ordered_json({3}));
  CHECK(run["loads"]["layers"].size() == 2);
  CHECK(run["events"] == ordered_json::parse("[{}, {}]"));
  CHECK_NOTHROW(core::write_report(dir / "run"));
}

TEST_CASE("What is no run, or cannot be written, is bad input in one line", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("other/file.txt", "x");
  dir.write("run/metrics.jsonl", "");
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  for (const char* name : {"other", "missing", "other/file.txt"}) {
    const std::string text = message([&] { core::write_report(dir / name); });
    CAPTURE(text);
    CHECK(text.find("run.dir") != std::string::npos);
    CHECK(text.find('\n') == std::string::npos);
  }
  CHECK(message([&] {
          core::write_report(dir / "run", dir / "no/such/folder.html");
        }).find("--out") != std::string::npos);
}

TEST_CASE("A curve of any length keeps its mean, its extremes and a bounded size",
          "[core-metrics]") {
  core::Curve curve(100);
  for (int64_t step = 1; step <= 12345; ++step) curve.add(step, step == 7777 ? 1000.0 : 1.0);
  curve.shrink(100);
  CHECK(curve.size() <= 100);
  CHECK(curve.size() > 40);
  const ordered_json json = curve.json();
  double greatest = 0;
  for (const auto& value : json["hi"]) greatest = std::max(greatest, value.get<double>());
  CHECK(greatest == 1000.0);
  CHECK(json["lo"][0] == 1.0);
  CHECK(json["y"][0] == 1.0);
  CHECK(std::is_sorted(json["x"].begin(), json["x"].end()));
}

TEST_CASE("A long load history keeps shares of the mean within its bound of cells",
          "[core-metrics]") {
  core::LoadHistory history(3000);
  for (int64_t step = 1; step <= 1000; ++step)
    history.add(step, {{"step", step}, {"a", {1, 1, 2, 4}}, {"b", {3, 0, 3, 0}}});
  const ordered_json json = history.json();
  const size_t bins = json["from"].size();
  CHECK(bins <= 240);
  CHECK(bins > 100);
  CHECK(json["from"][0] == 1);
  CHECK(json["to"].back() == 1000);
  std::string expected_a, expected_b;
  for (size_t bin = 0; bin < bins; ++bin) {
    expected_a += "\x60\x60\x80\xa0";                  // 1/2, 1/2, 1, 2 times the mean
    expected_b += std::string("\xa0\x00\xa0\x00", 4);  // 2, none, 2, none
  }
  CHECK(json["layers"][0]["data"] == core::base64(expected_a));
  CHECK(json["layers"][1]["data"] == core::base64(expected_b));
  CHECK(core::LoadHistory(3000).json().is_null());
}

TEST_CASE("Base64 is that of RFC 4648", "[core-metrics]") {
  CHECK(core::base64("") == "");
  CHECK(core::base64("f") == "Zg==");
  CHECK(core::base64("fo") == "Zm8=");
  CHECK(core::base64("foo") == "Zm9v");
  CHECK(core::base64("foobar") == "Zm9vYmFy");
}
