// A JSON value that knows where it stands, so that a mistake can be named: "FILE: model.vocab:
// ...".
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"

namespace cohort::core {

class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string file, std::string path = "")
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  /// "FILE: path", to begin a message with.
  std::string where() const { return path_.empty() ? file_ : file_ + ": " + path_; }
  bool is_null() const { return value_->is_null(); }

  bool has(const char* key) const {
    return object().value_->contains(key) && !(*value_)[key].is_null();
  }
  JsonField operator[](const char* key) const {
    const auto found = object().value_->find(key);
    COHORT_CHECK_INPUT(found != value_->end(), "{}: '{}' is missing", where(), key);
    return {*found, file_, path_.empty() ? key : path_ + "." + key};
  }
  JsonField operator[](size_t index) const {
    return {(*array().value_)[index], file_, path_ + "[" + std::to_string(index) + "]"};
  }
  size_t size() const { return value_->size(); }

  const JsonField& object() const { return expect(value_->is_object(), "an object"); }
  const JsonField& array() const { return expect(value_->is_array(), "a list"); }
  const std::string& text() const {
    expect(value_->is_string(), "a string");
    return value_->get_ref<const std::string&>();
  }
  bool flag() const {
    expect(value_->is_boolean(), "true or false");
    return value_->get<bool>();
  }
  /// An integer in [0, limit).
  int64_t below(int64_t limit) const {
    const bool fits =
        value_->is_number_unsigned() && value_->get<uint64_t>() < static_cast<uint64_t>(limit);
    COHORT_CHECK_INPUT(
        fits, "{}: should be an integer from 0 to {}, is {}", where(), limit - 1, shown());
    return value_->get<int64_t>();
  }
  /// The value of a key that may be absent or null.
  bool flag_or(const char* key, bool otherwise) const {
    return has(key) ? (*this)[key].flag() : otherwise;
  }
  std::string text_or(const char* key, const std::string& otherwise) const {
    return has(key) ? (*this)[key].text() : otherwise;
  }
  std::string type() const { return (*this)["type"].text(); }

  /// The value in a message: one short line whatever it holds.
  std::string shown() const {
    if (value_->is_structured()) return std::string("a JSON ") + value_->type_name();
    return value_->dump(-1, ' ', true).substr(0, 80);
  }

 private:
  const JsonField& expect(bool fits, const char* kind) const {
    COHORT_CHECK_INPUT(fits, "{}: should be {}, is {}", where(), kind, shown());
    return *this;
  }

  const nlohmann::json* value_;
  std::string file_, path_;
};

}  // namespace cohort::core
