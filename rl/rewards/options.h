// Reads the options of a reward or task: every key is asked for once, and what nobody asked for is
// the user's slip.
#pragma once
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "core/base/error.h"

namespace cohort::rl {

class Options {
 public:
  /// `owner` stands in messages ("reward format"). `json` must outlive the reader; null means none.
  Options(std::string owner, const nlohmann::json& json) : owner_(std::move(owner)), json_(json) {
    COHORT_CHECK_INPUT(json.is_object() || json.is_null(), "{}: options must be a map", owner_);
  }

  /// The value, or `otherwise`. InputError for another type.
  template <class T>
  T get(const std::string& key, T otherwise) {
    known_.insert(key);
    if (!json_.is_object() || !json_.contains(key)) return otherwise;
    return read<T>(key);
  }

  /// The value, which must be given.
  template <class T>
  T require(const std::string& key) {
    known_.insert(key);
    COHORT_CHECK_INPUT(
        json_.is_object() && json_.contains(key), "{}: option {} is missing", owner_, key);
    return read<T>(key);
  }

  bool has(const std::string& key) {
    known_.insert(key);
    return json_.is_object() && json_.contains(key);
  }

  /// InputError unless `value` is within [low, high].
  template <class T>
  T within(const std::string& key, T value, T low, T high) const {
    COHORT_CHECK_INPUT(value >= low && value <= high,
                       "{}: {} is {}; it must be between {} and {}",
                       owner_,
                       key,
                       value,
                       low,
                       high);
    return value;
  }

  /// InputError for an option that nobody asked for, naming those that exist.
  void finish() const {
    if (!json_.is_object()) return;
    for (const auto& [key, value] : json_.items()) {
      std::string names;
      for (const std::string& name : known_) names += (names.empty() ? "" : ", ") + name;
      COHORT_CHECK_INPUT(known_.count(key),
                         "{}: no option {}; {}",
                         owner_,
                         key,
                         names.empty() ? "it has none" : "known are " + names);
    }
  }

  const std::string& owner() const { return owner_; }

 private:
  template <class T>
  T read(const std::string& key) const {
    const nlohmann::json& value = json_.at(key);
    bool fits = true;
    if constexpr (std::is_same_v<T, bool>)
      fits = value.is_boolean();
    else if constexpr (std::is_integral_v<T>)
      fits = value.is_number_integer();
    else if constexpr (std::is_floating_point_v<T>)
      fits = value.is_number();
    try {
      if (fits) return value.get<T>();
    } catch (const nlohmann::json::exception&) {
    }
    throw InputError(fmt::format("{}: {} is {}; {}", owner_, key, value.dump(), expected<T>()));
  }

  template <class T>
  static const char* expected() {
    if constexpr (std::is_same_v<T, bool>) return "it must be true or false";
    if constexpr (std::is_integral_v<T>) return "it must be a whole number";
    if constexpr (std::is_floating_point_v<T>) return "it must be a number";
    if constexpr (std::is_same_v<T, std::string>) return "it must be a string";
    return "it must be a list";
  }

  std::string owner_;
  const nlohmann::json& json_;
  std::set<std::string> known_{"label"};
};

}  // namespace cohort::rl
