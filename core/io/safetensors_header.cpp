#include "core/io/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"

namespace cohort::core {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct DtypeName {
  const char* name;
  at::ScalarType dtype;
};
constexpr DtypeName kDtypes[] = {{"F64", at::kDouble},
                                 {"F32", at::kFloat},
                                 {"F16", at::kHalf},
                                 {"BF16", at::kBFloat16},
                                 {"I64", at::kLong},
                                 {"I32", at::kInt},
                                 {"I16", at::kShort},
                                 {"I8", at::kChar},
                                 {"U64", at::kUInt64},
                                 {"U32", at::kUInt32},
                                 {"U16", at::kUInt16},
                                 {"U8", at::kByte},
                                 {"BOOL", at::kBool},
                                 {"F8_E4M3", at::kFloat8_e4m3fn},
                                 {"F8_E5M2", at::kFloat8_e5m2},
                                 {"F8_E8M0", at::kFloat8_e8m0fnu}};

std::string known_dtypes() {
  std::string names;
  for (const auto& entry : kDtypes) names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}

/// One tensor's object as it stands in the header.
struct RawEntry {
  std::string name, dtype;
  std::vector<uint64_t> shape, offsets;
  std::set<std::string> fields;
};

/// Takes the header's JSON event by event. A DOM would keep one of two equal keys without a word,
/// and would build whatever a hostile header nests.
class HeaderEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderEvents(const std::string& path) : path_(path) {}

  std::vector<RawEntry> tensors;
  std::map<std::string, std::string> metadata;

  bool start_object(size_t) override {
    if (place_ == Place::kIgnored) return ++ignored_depth_, true;
    if (place_ == Place::kStart) return enter(Place::kNames);
    if (place_ == Place::kNames && name_ == "__metadata__") return enter(Place::kMetadata);
    if (place_ == Place::kNames) {
      tensors.push_back({name_, {}, {}, {}, {}});
      return enter(Place::kTensor);
    }
    return nested();
  }
  bool end_object() override {
    if (place_ == Place::kIgnored) return leave_ignored();
    return enter(place_ == Place::kNames ? Place::kEnd : Place::kNames);
  }
  bool start_array(size_t) override {
    if (place_ == Place::kIgnored) return ++ignored_depth_, true;
    if (place_ == Place::kTensor && field_ == "shape") return enter(Place::kShape);
    if (place_ == Place::kTensor && field_ == "data_offsets") return enter(Place::kOffsets);
    return nested();
  }
  bool end_array() override {
    if (place_ == Place::kIgnored) return leave_ignored();
    return enter(Place::kTensor);
  }
  bool key(std::string& key) override {
    if (place_ == Place::kNames) {
      if (!names_.insert(key).second) fail(fmt::format("key {} stands twice", in_quotes(key)));
      name_ = key;
    } else if (place_ == Place::kMetadata) {
      if (!metadata.try_emplace(key).second)
        fail(fmt::format("key {} stands twice in __metadata__", in_quotes(key)));
      field_ = key;
    } else if (place_ == Place::kTensor) {
      if (!tensors.back().fields.insert(key).second)
        fail(fmt::format("field {} of tensor {} stands twice", in_quotes(key), in_quotes(name_)));
      field_ = key;
    }
    return true;
  }
  bool string(std::string& text) override {
    if (place_ == Place::kMetadata) return metadata[field_] = text, true;
    if (place_ == Place::kTensor && field_ == "dtype") return tensors.back().dtype = text, true;
    return scalar();
  }
  bool number_unsigned(uint64_t number) override {
    if (place_ == Place::kShape) return tensors.back().shape.push_back(number), true;
    if (place_ == Place::kOffsets) return tensors.back().offsets.push_back(number), true;
    return scalar();
  }
  bool null() override {
    if (place_ == Place::kNames && name_ == "__metadata__") return true;
    return scalar();
  }
  bool boolean(bool) override { return scalar(); }
  bool number_integer(int64_t) override { return scalar(); }
  bool number_float(double, const std::string&) override { return scalar(); }
  bool binary(binary_t&) override { return scalar(); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) override {
    fail(fmt::format("is not JSON at byte {}", 7 + position));
  }

 private:
  enum class Place { kStart, kNames, kMetadata, kTensor, kShape, kOffsets, kIgnored, kEnd };

  bool enter(Place place) {
    place_ = place;
    return true;
  }
  /// An object or array where there should be none, or inside a field that is no business of ours.
  bool nested() {
    if (!unknown_field()) wrong_type();
    ignored_depth_ = 1;
    return enter(Place::kIgnored);
  }
  bool leave_ignored() {
    if (--ignored_depth_ == 0) place_ = Place::kTensor;
    return true;
  }
  bool scalar() {
    if (place_ != Place::kIgnored && !unknown_field()) wrong_type();
    return true;
  }
  bool unknown_field() const {
    return place_ == Place::kTensor && field_ != "dtype" && field_ != "shape" &&
           field_ != "data_offsets";
  }
  [[noreturn]] void wrong_type() const {
    switch (place_) {
      case Place::kMetadata:
        fail(fmt::format("value of {} in __metadata__ must be text", in_quotes(field_)));
      case Place::kNames:
        fail(fmt::format("value of {} must be an object", in_quotes(name_)));
      case Place::kTensor:
        fail(fmt::format("field {} of tensor {} must be {}",
                         field_,
                         in_quotes(name_),
                         field_ == "dtype" ? "text" : "a list of whole numbers"));
      default:
        fail(fmt::format(
            "field {} of tensor {} must hold whole numbers from 0 on", field_, in_quotes(name_)));
    }
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}: safetensors header: {}", path_, what));
  }

  const std::string& path_;
  Place place_ = Place::kStart;
  std::string name_, field_;
  std::set<std::string> names_;
  int64_t ignored_depth_ = 0;
};

/// Bytes of a tensor, or nullopt when the number does not fit 63 bits.
std::optional<int64_t> tensor_bytes(const std::vector<uint64_t>& shape, at::ScalarType dtype) {
  // LibTorch takes an empty dimension for 1 in strides, so those have to fit as well.
  int64_t bytes = static_cast<int64_t>(c10::elementSize(dtype)), span = bytes;
  for (const uint64_t dim : shape) {
    if (dim > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    const auto size = static_cast<int64_t>(dim);
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
    if (__builtin_mul_overflow(span, std::max<int64_t>(size, 1), &span)) return std::nullopt;
  }
  return bytes;
}

SafetensorsEntry check_entry(const RawEntry& raw, const std::string& path) {
  for (const char* field : {"dtype", "shape", "data_offsets"})
    COHORT_CHECK_INPUT(raw.fields.count(field),
                       "{}: safetensors header: tensor {} has no {}",
                       path,
                       in_quotes(raw.name),
                       field);
  const auto dtype = safetensors_dtype(raw.dtype);
  COHORT_CHECK_INPUT(dtype,
                     "{}: tensor {} has dtype {}, not one of {}",
                     path,
                     in_quotes(raw.name),
                     in_quotes(raw.dtype),
                     known_dtypes());
  COHORT_CHECK_INPUT(raw.offsets.size() == 2 && raw.offsets[0] <= raw.offsets[1] &&
                         raw.offsets[1] <= static_cast<uint64_t>(INT64_MAX),
                     "{}: data_offsets of tensor {} must be two numbers, begin <= end",
                     path,
                     in_quotes(raw.name));
  const auto bytes = tensor_bytes(raw.shape, *dtype);
  COHORT_CHECK_INPUT(bytes, "{}: shape of tensor {} is too large", path, in_quotes(raw.name));
  const uint64_t found = raw.offsets[1] - raw.offsets[0];
  COHORT_CHECK_INPUT(found == static_cast<uint64_t>(*bytes),
                     "{}: tensor {} has {} bytes of data, its dtype and shape say {}",
                     path,
                     in_quotes(raw.name),
                     found,
                     *bytes);
  return {*dtype,
          std::vector<int64_t>(raw.shape.begin(), raw.shape.end()),
          static_cast<int64_t>(raw.offsets[0]),
          static_cast<int64_t>(raw.offsets[1])};
}

/// The tensors must tile the data section: a byte that belongs to none could hide anything.
void check_tiling(const SafetensorsHeader& header, uint64_t data_bytes, const std::string& path) {
  using Item = std::pair<const std::string, SafetensorsEntry>;
  std::vector<const Item*> order;
  for (const Item& item : header.entries) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const Item* a, const Item* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  int64_t next = 0;
  for (const Item* item : order) {
    COHORT_CHECK_INPUT(
        item->second.begin == next,
        "{}: data of tensor {} begins at {} instead of {}, where the one before ends",
        path,
        in_quotes(item->first),
        item->second.begin,
        next);
    next = item->second.end;
  }
  COHORT_CHECK_INPUT(static_cast<uint64_t>(next) == data_bytes,
                     "{}: holds {} bytes of data, its header describes {}: the file is {}",
                     path,
                     data_bytes,
                     next,
                     data_bytes < static_cast<uint64_t>(next) ? "cut short" : "too long");
}

}  // namespace

std::string in_quotes(std::string_view name) {
  constexpr size_t kLongest = 160;
  const bool cut = name.size() > kLongest;
  const std::string shown = std::string(name.substr(0, kLongest)) + (cut ? "..." : "");
  std::string text =
      nlohmann::json(shown).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  // The one control character that JSON lets stand.
  for (size_t at = text.find('\x7f'); at != text.npos; at = text.find('\x7f', at))
    text.replace(at, 1, "\\u007f");
  return text;
}

std::string safetensors_dtype_name(at::ScalarType dtype) {
  for (const auto& entry : kDtypes)
    if (entry.dtype == dtype) return entry.name;
  throw Error(
      fmt::format("safetensors files hold {}, not {}", known_dtypes(), c10::toString(dtype)));
}

std::optional<at::ScalarType> safetensors_dtype(std::string_view name) {
  for (const auto& entry : kDtypes)
    if (entry.name == name) return entry.dtype;
  return std::nullopt;
}

SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& path) {
  COHORT_CHECK_INPUT(file.size() >= 8,
                     "{}: has {} bytes, too few for a safetensors file: it is cut short",
                     path,
                     file.size());
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(file[i]);
  COHORT_CHECK_INPUT(length <= kMaxHeaderBytes,
                     "{}: says its header has {} bytes, more than the {} that are allowed: not a "
                     "safetensors file, or damaged",
                     path,
                     length,
                     kMaxHeaderBytes);
  COHORT_CHECK_INPUT(length <= file.size() - 8,
                     "{}: says its header has {} bytes, the file has {}: it is cut short",
                     path,
                     length,
                     file.size());
  const std::string_view text = file.substr(8, length);
  COHORT_CHECK_INPUT(
      !text.empty() && text[0] == '{', "{}: safetensors header does not begin with '{{'", path);
  // The JSON parser takes a NUL for the end of its input.
  COHORT_CHECK_INPUT(
      text.find('\0') == std::string_view::npos, "{}: safetensors header: holds a NUL byte", path);
  HeaderEvents events(path);
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);

  SafetensorsHeader header;
  header.metadata = std::move(events.metadata);
  header.data_start = 8 + length;
  for (const RawEntry& raw : events.tensors)
    header.entries.emplace(raw.name, check_entry(raw, path));
  check_tiling(header, file.size() - header.data_start, path);
  return header;
}

std::string format_safetensors_header(const std::vector<SafetensorsSpec>& tensors,
                                      const std::map<std::string, std::string>& metadata,
                                      const std::string& path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  // ordered_json looks a key up by going through all of them: names are compared here.
  std::set<std::string_view> names{"__metadata__"};
  std::string text = header.dump();
  text.pop_back();
  size_t next = 0;
  try {
    for (const auto& [name, dtype, shape] : tensors) {
      COHORT_CHECK(names.insert(name).second, "{}: tensor {} stands twice", path, in_quotes(name));
      const std::string dtype_name = safetensors_dtype_name(dtype);
      const auto bytes = tensor_bytes(std::vector<uint64_t>(shape.begin(), shape.end()), dtype);
      COHORT_CHECK(bytes, "{}: tensor {} is too large", path, in_quotes(name));
      nlohmann::ordered_json entry;
      entry["dtype"] = dtype_name;
      entry["shape"] = shape;
      entry["data_offsets"] = {next, next + static_cast<size_t>(*bytes)};
      next += static_cast<size_t>(*bytes);
      if (text.size() > 1) text += ',';
      text += nlohmann::json(name).dump() + ":" + entry.dump();
    }
  } catch (const nlohmann::json::exception&) {
    throw Error(fmt::format("{}: a tensor's name is not UTF-8", path));
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  COHORT_CHECK(text.size() <= kMaxHeaderBytes,
               "{}: the header of {} tensors takes {} bytes, more than the {} that are allowed",
               path,
               tensors.size(),
               text.size(),
               kMaxHeaderBytes);
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

}  // namespace cohort::core
