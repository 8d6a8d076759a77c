#include "cli/recipe/table.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/io/strict_json.h"

namespace cohort::cli {
namespace {

constexpr size_t kShown = 4;

std::vector<Sample> first_samples(const std::string& path) {
  std::vector<Sample> samples;
  std::ifstream file(path);
  for (std::string line; samples.size() < kShown && std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || json.value("sample", int64_t{-1}) != 0) continue;
    samples.push_back(
        {json.value("prompt", ""), json.value("completion", ""), json.value("correct", false)});
  }
  return samples;
}

}  // namespace

std::vector<Figures> read_figures(const Recipe& recipe, const RecipeState& state) {
  std::vector<Figures> all;
  for (const TableRow& row : recipe.table) {
    const Stage& evaluation = recipe.stages[row.evaluation];
    const StageState* done = state.find(evaluation.name);
    const StageState* made = state.find(recipe.stages[row.model].name);
    if (!done || !done->finished || !made) continue;
    const auto json = core::read_strict_json(evaluation.out);
    Figures figures;
    figures.label = row.label;
    figures.about = row.about;
    figures.stage = recipe.stages[row.model].name;
    figures.seconds = made->seconds;
    try {
      figures.pass = json.at("pass_at_1");
      figures.low = json.at("pass_at_1_ci95").at(0);
      figures.high = json.at("pass_at_1_ci95").at(1);
      figures.tokens = json.at("completion_tokens_mean");
      figures.truncated = json.at("truncated_fraction");
      figures.problems = json.at("problems");
      figures.samples = json.at("samples");
      figures.parameters = json.at("parameters");
      figures.active = json.at("active_parameters");
      for (const auto& [label, mean] : json.at("rewards").items())
        figures.rewards.emplace_back(label, mean);
    } catch (const nlohmann::json::exception& error) {
      throw InputError(
          fmt::format("{}: is not what cohort eval writes: {}", evaluation.out, error.what()));
    }
    figures.shown = first_samples(completions_of(evaluation));
    all.push_back(std::move(figures));
  }
  return all;
}

std::string text_table(const std::vector<Figures>& figures) {
  if (figures.empty()) return "";
  size_t width = 5;
  for (const Figures& each : figures) width = std::max(width, each.label.size());
  std::string text =
      fmt::format("{:<{}}  pass@1  95 % interval   active      tokens  seconds", "model", width);
  for (const auto& [label, mean] : figures[0].rewards) text += "  " + label;
  text += "\n";
  for (const Figures& each : figures) {
    text += fmt::format("{:<{}}  {:.4f}  {:.4f}-{:.4f}  {:>9}  {:>8.1f}  {:>7.0f}",
                        each.label,
                        width,
                        each.pass,
                        each.low,
                        each.high,
                        each.active,
                        each.tokens,
                        each.seconds);
    for (const auto& [label, mean] : each.rewards)
      text += fmt::format("  {:>{}.3f}", mean, std::max<size_t>(label.size(), 5));
    text += "\n";
  }
  return text;
}

}  // namespace cohort::cli
