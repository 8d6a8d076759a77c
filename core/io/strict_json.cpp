#include "core/io/strict_json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "core/io/file.h"
#include "core/io/safetensors_header.h"

namespace cohort::core {
namespace {

using nlohmann::json;
constexpr int kDeepest = 128;

/// Follows the parser to see what the finished value no longer tells.
class Watch {
 public:
  explicit Watch(const std::string& path) : path_(path) {}

  bool operator()(int depth, json::parse_event_t event, json& value) {
    COHORT_CHECK_INPUT(depth < kDeepest, "{}: nests more than {} levels deep", path_, kDeepest);
    if (event == json::parse_event_t::object_start) keys_.emplace_back();
    if (event == json::parse_event_t::object_end) keys_.pop_back();
    if (event == json::parse_event_t::key)
      COHORT_CHECK_INPUT(keys_.back().insert(value.get<std::string>()).second,
                         "{}: key {} stands twice in one object",
                         path_,
                         in_quotes(value.get_ref<const std::string&>()));
    return true;
  }

 private:
  const std::string& path_;
  std::vector<std::set<std::string>> keys_;  ///< Of the objects that are open.
};

}  // namespace

json parse_strict_json(std::string_view text, const std::string& path) {
  // The parser takes a NUL for the end of its input.
  COHORT_CHECK_INPUT(text.find('\0') == std::string_view::npos, "{}: holds a NUL byte", path);
  Watch watch(path);
  try {
    return json::parse(text.begin(), text.end(), [&watch](int depth, auto event, json& value) {
      return watch(depth, event, value);
    });
  } catch (const json::parse_error& error) {
    const size_t byte = std::min(error.byte, text.size());
    const auto line =
        1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(byte), '\n');
    throw InputError(fmt::format("{}:{}: not readable as JSON", path, line));
  } catch (const json::exception&) {
    throw InputError(fmt::format("{}: not readable as JSON: a number is out of range", path));
  }
}

json read_strict_json(const std::string& path) {
  const MappedFile file(path);
  return parse_strict_json(file.text(), path);
}

}  // namespace cohort::core
