#include "core/metrics/curve.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace cohort::core {

using nlohmann::ordered_json;

void Curve::add(int64_t step, double value) {
  if (!bins_.empty() && bins_.back().count < stride_) {
    Bin& bin = bins_.back();
    bin.last_step = step;
    bin.count += 1;
    bin.sum += value;
    bin.least = std::min(bin.least, value);
    bin.greatest = std::max(bin.greatest, value);
    return;
  }
  bins_.push_back({step, step, 1, value, value, value});
  if (bins_.size() > max_bins_) halve();
}

void Curve::halve() {
  for (size_t i = 0; 2 * i < bins_.size(); ++i) {
    Bin merged = bins_[2 * i];
    if (2 * i + 1 < bins_.size()) {
      const Bin& next = bins_[2 * i + 1];
      merged.last_step = next.last_step;
      merged.count += next.count;
      merged.sum += next.sum;
      merged.least = std::min(merged.least, next.least);
      merged.greatest = std::max(merged.greatest, next.greatest);
    }
    bins_[i] = merged;
  }
  bins_.resize((bins_.size() + 1) / 2);
  stride_ *= 2;
}

void Curve::shrink(size_t bins) {
  while (bins_.size() > std::max<size_t>(1, bins)) halve();
}

ordered_json Curve::json() const {
  ordered_json x = ordered_json::array(), y = x, lo = x, hi = x;
  for (const Bin& bin : bins_) {
    x.push_back((bin.first_step + bin.last_step) / 2);
    y.push_back(six_digits(bin.sum / static_cast<double>(bin.count)));
    lo.push_back(six_digits(bin.least));
    hi.push_back(six_digits(bin.greatest));
  }
  ordered_json curve = {{"x", x}, {"y", y}};
  if (stride_ > 1) curve["lo"] = lo, curve["hi"] = hi;
  return curve;
}

size_t LoadHistory::max_bins() const {
  size_t cells = 1;  // of one bin
  for (const size_t experts : experts_) cells += experts;
  return std::clamp<size_t>(max_cells_ / cells, 8, 240);
}

void LoadHistory::add(int64_t step, const ordered_json& line) {
  const bool open = !bins_.empty() && bins_.back().count < stride_;
  if (!open) bins_.push_back({step, step, 0, {}});
  Bin& bin = bins_.back();
  bin.last_step = step;
  bin.count += 1;
  for (const auto& [key, loads] : line.items()) {
    if (!loads.is_array() || loads.empty()) continue;
    const size_t layer =
        static_cast<size_t>(std::find(layers_.begin(), layers_.end(), key) - layers_.begin());
    if (layer == layers_.size()) layers_.push_back(key), experts_.push_back(0);
    if (bin.loads.size() <= layer) bin.loads.resize(layer + 1);
    auto& sums = bin.loads[layer];
    if (sums.size() < loads.size()) sums.resize(loads.size(), 0.0);
    experts_[layer] = std::max(experts_[layer], sums.size());
    for (size_t e = 0; e < loads.size(); ++e)
      if (loads[e].is_number()) sums[e] += std::max(0.0, loads[e].get<double>());
  }
  while (bins_.size() > max_bins()) halve();
}

void LoadHistory::halve() {
  for (size_t i = 0; 2 * i < bins_.size(); ++i) {
    Bin merged = std::move(bins_[2 * i]);
    if (2 * i + 1 < bins_.size()) {
      Bin& next = bins_[2 * i + 1];
      merged.last_step = next.last_step;
      merged.count += next.count;
      merged.loads.resize(std::max(merged.loads.size(), next.loads.size()));
      for (size_t l = 0; l < next.loads.size(); ++l) {
        merged.loads[l].resize(std::max(merged.loads[l].size(), next.loads[l].size()), 0.0);
        for (size_t e = 0; e < next.loads[l].size(); ++e) merged.loads[l][e] += next.loads[l][e];
      }
    }
    bins_[i] = std::move(merged);
  }
  bins_.resize((bins_.size() + 1) / 2);
  stride_ *= 2;
}

namespace {

std::string encoded(const std::vector<double>& loads, size_t experts) {
  double sum = 0;
  for (const double load : loads) sum += load;
  const double mean = sum / static_cast<double>(experts);
  std::string bytes(experts, '\0');
  for (size_t e = 0; e < loads.size(); ++e)
    if (loads[e] > 0)
      bytes[e] = static_cast<char>(static_cast<uint8_t>(
          std::clamp(std::lround(128 + 32 * std::log2(loads[e] / mean)), 1L, 255L)));
  return bytes;
}

}  // namespace

ordered_json LoadHistory::json() const {
  if (layers_.empty()) return nullptr;
  ordered_json result = {{"from", ordered_json::array()},
                         {"to", ordered_json::array()},
                         {"layers", ordered_json::array()}};
  for (const Bin& bin : bins_) {
    result["from"].push_back(bin.first_step);
    result["to"].push_back(bin.last_step);
  }
  for (size_t l = 0; l < layers_.size(); ++l) {
    std::string bytes;
    for (const Bin& bin : bins_)
      bytes += l < bin.loads.size() ? encoded(bin.loads[l], experts_[l])
                                    : std::string(experts_[l], '\0');
    result["layers"].push_back(
        {{"name", layers_[l]}, {"experts", experts_[l]}, {"data", base64(bytes)}});
  }
  return result;
}

std::string base64(const std::string& bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (size_t j = 0; j < 3; ++j)
      word = word << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j)
      text += i + j <= bytes.size() ? kDigits[word >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

double six_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return std::strtod(text, nullptr);
}

}  // namespace cohort::core
