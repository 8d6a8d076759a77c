// dir/report.html: the table as bars with intervals, the same problems answered by every model, and
// the stages with their commands. No script, no request.
#include <algorithm>
#include <filesystem>

#include "cli/model_summary.h"
#include "cli/recipe/runner.h"
#include "cli/recipe/table.h"
#include "cli/recipe/words.h"
#include "core/base/error.h"
#include "core/io/file.h"
#include "core/metrics/report_style.h"

namespace cohort::cli {
namespace {

constexpr const char* kStyle = R"css(
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
th, td { text-align: left; vertical-align: top; padding: 8px 12px; border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 560; font-size: 12.5px; }
td.number, th.number { text-align: right; }
td small { display: block; color: var(--soft); font-size: 12.5px; }
section { margin: 22px 0 30px; }
svg { display: block; width: 260px; height: 22px; }
.bar { fill: var(--c0); } .track { fill: var(--grid); } .whisker { stroke: var(--text); stroke-width: 1.4; fill: none; }
pre.said { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 12.5px; }
.right { border-left: 3px solid var(--good); } .wrong { border-left: 3px solid var(--bad); }
td.right, td.wrong { padding-left: 10px; }
code { font-size: 12px; overflow-wrap: anywhere; }
)css";

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '&':
        safe += "&amp;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

/// pass@1 from 0 to 1 with its interval.
std::string bar(const Figures& figures) {
  return fmt::format(
      "<svg viewBox=\"0 0 260 22\" role=\"img\" aria-label=\"{0}\"><title>{0}, 95 % from {4} to "
      "{5}</title>"
      "<rect class=\"track\" x=\"0\" y=\"4\" width=\"260\" height=\"14\" rx=\"3\"/>"
      "<rect class=\"bar\" x=\"0\" y=\"4\" width=\"{1:.1f}\" height=\"14\" rx=\"3\"/>"
      "<path class=\"whisker\" d=\"M{2:.1f} 11H{3:.1f}M{2:.1f} 7v8M{3:.1f} 7v8\"/></svg>",
      percent(figures.pass),
      260 * figures.pass,
      260 * figures.low,
      260 * figures.high,
      percent(figures.low),
      percent(figures.high));
}

std::string duration(double seconds) {
  return seconds < 90 ? fmt::format("{:.0f} s", seconds) : fmt::format("{:.1f} min", seconds / 60);
}

std::string table_section(const std::vector<Figures>& figures) {
  if (figures.empty())
    return "<section><p class=\"hint\">No model has been evaluated yet.</p></section>";
  std::string rows;
  for (const Figures& each : figures) {
    std::string rewards;
    for (const auto& [label, mean] : each.rewards)
      rewards += fmt::format("<td class=\"number\">{:.3f}</td>", mean);
    rows += fmt::format(
        "<tr><td><b>{}</b><small>{}</small></td><td class=\"number\"><b>{}</b><small>{} to "
        "{}</small></td>"
        "<td>{}</td>{}<td class=\"number\">{:.1f}<small>{} cut</small></td><td "
        "class=\"number\">{}<small>of {}</small></td>"
        "<td class=\"number\">{}</td></tr>\n",
        escaped(each.label),
        escaped(each.about),
        percent(each.pass),
        percent(each.low),
        percent(each.high),
        bar(each),
        rewards,
        each.tokens,
        percent(each.truncated),
        grouped(each.active),
        grouped(each.parameters),
        duration(each.seconds));
  }
  std::string heads;
  for (const auto& [label, mean] : figures[0].rewards)
    heads += "<th class=\"number\">" + escaped(label) + "</th>";
  return fmt::format(
      "<section><h2>Models</h2><p class=\"hint\">pass@1 on {} held-out problems, {} completions of "
      "each, with a 95 % "
      "interval; mean rewards; tokens of a completion; parameters that a token "
      "uses.</p><table><tr><th>model</th>"
      "<th class=\"number\">pass@1</th><th></th>{}<th class=\"number\">tokens</th><th "
      "class=\"number\">active</th>"
      "<th class=\"number\">made in</th></tr>\n{}</table></section>",
      grouped(figures[0].problems),
      figures[0].samples,
      heads,
      rows);
}

std::string samples_section(const std::vector<Figures>& figures) {
  size_t problems = figures.empty() ? 0 : figures[0].shown.size();
  for (const Figures& each : figures) problems = std::min(problems, each.shown.size());
  if (problems == 0) return "";
  std::string heads = "<tr><th></th>", rows;
  for (size_t problem = 0; problem < problems; ++problem)
    heads += "<th><pre class=\"said\">" + escaped(figures[0].shown[problem].prompt) + "</pre></th>";
  for (const Figures& each : figures) {
    rows += "<tr><td><b>" + escaped(each.label) + "</b></td>";
    for (size_t problem = 0; problem < problems; ++problem) {
      const Sample& sample = each.shown[problem];
      rows += fmt::format("<td class=\"{}\"><pre class=\"said\">{}</pre></td>",
                          sample.correct ? "right" : "wrong",
                          escaped(sample.completion));
    }
    rows += "</tr>\n";
  }
  return "<section><h2>The same problems, answered by each</h2><p class=\"hint\">The first "
         "completion of the first "
         "held-out problems; green is right.</p><table>" +
         heads + "</tr>\n" + rows + "</table></section>";
}

std::string stages_section(const Recipe& recipe, const RecipeState& state) {
  const auto now = standings(recipe, state);
  std::string rows;
  for (size_t index = 0; index < recipe.stages.size(); ++index) {
    const Stage& stage = recipe.stages[index];
    const StageState* done = state.find(stage.name);
    std::string page;
    if (std::filesystem::exists(stage.out + "/report.html"))
      page = fmt::format(
          " <a href=\"{}/report.html\">report</a>",
          escaped(std::filesystem::path(stage.out).lexically_relative(recipe.dir).string()));
    rows += fmt::format(
        "<tr><td><b>{}</b>{}<small>{}</small></td><td>{}</td><td "
        "class=\"number\">{}</td><td><code>{}</code></td>"
        "<td><code>{}</code></td></tr>\n",
        escaped(stage.name),
        page,
        escaped(stage.about),
        standing_text(now[index]),
        done ? duration(done->seconds) : "",
        done ? done->output.digest : "",
        escaped(shell_line(stage.command)));
  }
  return "<section><h2>Stages</h2><p class=\"hint\">A stage is run again when its command, a file "
         "it names or the output "
         "of a stage it uses has changed.</p><table><tr><th>stage</th><th></th><th "
         "class=\"number\">time</th><th>output, XXH3</th>"
         "<th>command</th></tr>\n" +
         rows + "</table></section>";
}

}  // namespace

std::string write_page(const Recipe& recipe,
                       const RecipeState& state,
                       const std::vector<Figures>& figures) {
  const std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>{0}</title>\n"
      "<style>{1}{2}</style>\n</head>\n<body>\n<header><div class=\"title\"><h1>{0}</h1><p "
      "id=\"subtitle\">{3}</p></div></header>\n"
      "<main>\n{4}\n{5}\n{6}\n</main>\n</body>\n</html>\n",
      escaped(recipe.title),
      core::kReportStyle,
      kStyle,
      escaped(recipe.file + " in " + recipe.dir),
      table_section(figures),
      samples_section(figures),
      stages_section(recipe, state));
  const std::string path = recipe.dir + "/report.html";
  core::replace_file(path, page);
  return path;
}

}  // namespace cohort::cli
