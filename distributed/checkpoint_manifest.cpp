#include "distributed/checkpoint_manifest.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "core/io/xxh3.h"

namespace cohort::distributed {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "cohort checkpoint 1";
// The text begins with its own checksum, taken while these 16 digits are zeros.
constexpr std::string_view kChecksumKey = "{\"xxh3\":\"";
constexpr std::string_view kNoChecksum = "0000000000000000";

json to_json(const ManifestTensor& tensor) {
  json slices = json::array();
  for (const auto& slice : tensor.slices)
    slices.push_back({{"file", slice.file},
                      {"begin", slice.begin},
                      {"end", slice.end},
                      {"at", slice.at},
                      {"xxh3", slice.xxh3}});
  return {{"dtype", core::safetensors_dtype_name(tensor.dtype)},
          {"shape", tensor.shape},
          {"slices", std::move(slices)}};
}

ManifestTensor tensor_from(const json& value) {
  ManifestTensor tensor;
  const auto dtype = core::safetensors_dtype(value.at("dtype").get_ref<const std::string&>());
  COHORT_CHECK(dtype, "unknown dtype {}", value.at("dtype").dump());
  tensor.dtype = *dtype;
  tensor.shape = value.at("shape").get<std::vector<int64_t>>();
  for (const auto& slice : value.at("slices"))
    tensor.slices.push_back(
        {slice.at("file"), slice.at("begin"), slice.at("end"), slice.at("at"), slice.at("xxh3")});
  return tensor;
}

/// "key":{ one line an entry }: a person can read it, and diff it.
template <typename Map, typename ToJson>
std::string lines(const Map& map, ToJson&& to_json) {
  std::string text = "{";
  for (const auto& [name, value] : map)
    text += (text.size() > 1 ? ",\n" : "\n") + json(name).dump() + ":" + to_json(value).dump();
  return text + "}";
}

void check_covers(const std::string& name, const ManifestTensor& tensor) {
  int64_t next = 0, numel = 1;
  for (const int64_t dim : tensor.shape)
    COHORT_CHECK(dim >= 0 && !__builtin_mul_overflow(numel, dim, &numel),
                 "tensor {} has an impossible shape",
                 name);
  for (const auto& slice : tensor.slices) {
    COHORT_CHECK(slice.begin == next && slice.end >= slice.begin && slice.end <= numel,
                 "tensor {} has elements [{}, {}) where a slice from {} on is due, of {} in all",
                 name,
                 slice.begin,
                 slice.end,
                 next,
                 numel);
    next = slice.end;
  }
  COHORT_CHECK(next == numel && !tensor.slices.empty(),
               "tensor {} has only {} of its {} elements",
               name,
               next,
               numel);
}

void check_name(const std::string& file) {
  COHORT_CHECK(!file.empty() && file.find('/') == std::string::npos && file != "." &&
                   file != ".." && file != kManifestName,
               "'{}' cannot be the name of a file of a checkpoint",
               file);
}

}  // namespace

int64_t ManifestTensor::numel() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

int64_t ManifestTensor::bytes(const ManifestSlice& slice) const {
  return (slice.end - slice.begin) * static_cast<int64_t>(c10::elementSize(dtype));
}

bool ManifestTensor::is_model() const {
  return !slices.empty() && slices.front().file.rfind("model-", 0) == 0;
}

void merge(Manifest& into, const Manifest& part) {
  for (const auto& [name, file] : part.files)
    COHORT_CHECK(into.files.emplace(name, file).second, "two ranks wrote {}", name);
  for (const auto& [name, tensor] : part.tensors) {
    const auto [found, fresh] = into.tensors.emplace(name, tensor);
    if (fresh) continue;
    auto& known = found->second;
    COHORT_CHECK(known.dtype == tensor.dtype && known.shape == tensor.shape,
                 "tensor {} is {} [{}] on one rank and {} [{}] on another",
                 name,
                 c10::toString(known.dtype),
                 fmt::join(known.shape, ", "),
                 c10::toString(tensor.dtype),
                 fmt::join(tensor.shape, ", "));
    known.slices.insert(known.slices.end(), tensor.slices.begin(), tensor.slices.end());
    std::stable_sort(known.slices.begin(), known.slices.end(), [](const auto& a, const auto& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
  }
}

void check_consistent(const Manifest& manifest) {
  std::map<std::string, std::vector<std::pair<int64_t, int64_t>>> ranges;
  for (const auto& [name, tensor] : manifest.tensors) {
    check_covers(name, tensor);
    for (const auto& slice : tensor.slices)
      ranges[slice.file].push_back({slice.at, slice.at + tensor.bytes(slice)});
  }
  for (auto& [name, held] : ranges)
    COHORT_CHECK(manifest.files.count(name), "a slice stands in {}, which is not listed", name);
  for (const auto& [name, file] : manifest.files) {
    check_name(name);
    int64_t next = file.head_bytes;
    auto& held = ranges[name];
    std::sort(held.begin(), held.end());
    for (const auto& [begin, end] : held) {
      COHORT_CHECK(begin == next, "{}: a slice begins at byte {} instead of {}", name, begin, next);
      next = end;
    }
    COHORT_CHECK(
        next == file.bytes, "{}: {} of {} bytes are accounted for", name, next, file.bytes);
  }
}

std::string format_manifest(const Manifest& manifest) {
  std::string text;
  try {
    text = std::string(kChecksumKey) + std::string(kNoChecksum) +
           "\",\n\"format\":" + json(kFormat).dump() +
           ",\n\"step\":" + std::to_string(manifest.step) + ",\n\"mesh\":" + manifest.mesh.dump() +
           ",\n\"state\":" + manifest.state.dump() + ",\n\"files\":" +
           lines(manifest.files,
                 [](const ManifestFile& file) {
                   return json{
                       {"bytes", file.bytes}, {"head_bytes", file.head_bytes}, {"xxh3", file.xxh3}};
                 }) +
           ",\n\"tensors\":" + lines(manifest.tensors, to_json) + "}\n";
  } catch (const json::exception& error) {
    throw Error(fmt::format("the state or a name cannot be written as JSON: {}", error.what()));
  }
  text.replace(kChecksumKey.size(), kNoChecksum.size(), core::xxh3_hex(text.data(), text.size()));
  return text;
}

Manifest parse_part(std::string_view text, const std::string& source) {
  const size_t body = kChecksumKey.size() + kNoChecksum.size();
  COHORT_CHECK_INPUT(text.size() > body && text.substr(0, kChecksumKey.size()) == kChecksumKey,
                     "{}: damaged: it does not begin with its checksum",
                     source);
  core::Xxh3 checksum;
  checksum.update(kChecksumKey.data(), kChecksumKey.size());
  checksum.update(kNoChecksum.data(), kNoChecksum.size());
  checksum.update(text.data() + body, text.size() - body);
  const auto recorded = text.substr(kChecksumKey.size(), kNoChecksum.size());
  COHORT_CHECK_INPUT(
      recorded == checksum.hex(), "{}: damaged: its bytes do not match their xxh3", source);
  Manifest manifest;
  try {
    const json value = json::parse(text);
    COHORT_CHECK(value.at("format") == kFormat,
                 "written as {}, this Cohort reads \"{}\"",
                 value.at("format").dump(),
                 kFormat);
    manifest.step = value.at("step");
    manifest.mesh = value.at("mesh");
    manifest.state = value.at("state");
    for (const auto& [name, file] : value.at("files").items())
      manifest.files[name] = {file.at("bytes"), file.at("head_bytes"), file.at("xxh3")};
    for (const auto& [name, tensor] : value.at("tensors").items())
      manifest.tensors[name] = tensor_from(tensor);
  } catch (const json::exception& error) {
    throw InputError(fmt::format("{}: not a manifest of Cohort: {}", source, error.what()));
  } catch (const Error& error) {
    throw InputError(fmt::format("{}: {}", source, error.what()));
  }
  return manifest;
}

Manifest parse_manifest(std::string_view text, const std::string& path) {
  Manifest manifest = parse_part(text, path);
  try {
    check_consistent(manifest);
  } catch (const Error& error) {
    throw InputError(fmt::format("{}: {}", path, error.what()));
  }
  return manifest;
}

}  // namespace cohort::distributed
