#include "core/data/input_file.h"

#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/base/error.h"

namespace cohort::core {
namespace {

constexpr size_t kBufferBytes = 1 << 18;
constexpr int kGzipFraming = 16 + MAX_WBITS;

enum class Format { plain, gzip, zstd };

Format format_of(const unsigned char* bytes, size_t count) {
  if (count >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b) return Format::gzip;
  if (count >= 4 && std::memcmp(bytes, "\x28\xb5\x2f\xfd", 4) == 0) return Format::zstd;
  return Format::plain;
}

}  // namespace

struct InputFile::State {
  explicit State(const std::string& path) : raw(kBufferBytes) {
    file = std::fopen(path.c_str(), "rb");
    COHORT_CHECK_INPUT(file, "{}: cannot be read: {}", path, std::strerror(errno));
    std::setvbuf(file, nullptr, _IONBF, 0);  // `raw` is the buffer.
    hash = XXH3_createState();
    XXH3_64bits_reset(hash);
    refill();
    format = format_of(raw.data(), end);
    if (format == Format::gzip)
      COHORT_CHECK(inflateInit2(&inflater, kGzipFraming) == Z_OK, "zlib: out of memory");
    if (format == Format::zstd) {
      frames = ZSTD_createDStream();
      COHORT_CHECK(frames, "zstd: out of memory");
    }
  }
  ~State() {
    if (format == Format::gzip) inflateEnd(&inflater);
    ZSTD_freeDStream(frames);
    XXH3_freeState(hash);
    std::fclose(file);
  }

  /// Brings the next raw bytes to [at, end) once those there are used up; false at the file's end.
  bool refill() {
    if (at < end) return true;
    at = 0;
    end = std::fread(raw.data(), 1, raw.size(), file);
    if (end == 0 && std::ferror(file) && damage.empty())
      damage = fmt::format("reading failed: {}", std::strerror(errno));
    XXH3_64bits_update(hash, raw.data(), end);
    raw_bytes += static_cast<int64_t>(end);
    return end > 0;
  }

  size_t read_plain(char* out, size_t size) {
    if (!refill()) return 0;
    const size_t taken = std::min(size, end - at);
    std::memcpy(out, raw.data() + at, taken);
    at += taken;
    return taken;
  }

  size_t read_gzip(char* out, size_t size) {
    inflater.next_out = reinterpret_cast<Bytef*>(out);
    inflater.avail_out = static_cast<uInt>(size);
    while (inflater.avail_out == size) {
      if (!refill()) {
        if (inside) damage = "the gzip stream is cut";
        break;
      }
      inflater.next_in = raw.data() + at;
      inflater.avail_in = static_cast<uInt>(end - at);
      if (!inside) inflateReset(&inflater);  // Members may follow one another.
      inside = true;
      const int result = inflate(&inflater, Z_NO_FLUSH);
      at = end - inflater.avail_in;
      if (result == Z_STREAM_END) {
        inside = false;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        damage = "the gzip stream is damaged";
        break;
      }
    }
    return size - inflater.avail_out;
  }

  size_t read_zstd(char* out, size_t size) {
    ZSTD_outBuffer output{out, size, 0};
    while (output.pos == 0) {
      // A frame may have more to give than fitted into the last output.
      const bool has_input = refill();
      ZSTD_inBuffer input{raw.data(), end, at};
      if (!has_input && !inside) break;
      const size_t result = ZSTD_decompressStream(frames, &output, &input);
      at = input.pos;
      if (ZSTD_isError(result)) {
        damage = "the zstd stream is damaged";
        break;
      }
      inside = result != 0;
      if (!has_input && output.pos == 0 && inside) {
        damage = "the zstd stream is cut";
        break;
      }
    }
    return output.pos;
  }

  std::FILE* file = nullptr;
  Format format = Format::plain;
  std::vector<unsigned char> raw;
  size_t at = 0, end = 0;
  int64_t raw_bytes = 0;
  XXH3_state_t* hash = nullptr;
  z_stream inflater{};
  ZSTD_DStream* frames = nullptr;
  bool inside = false;  ///< A gzip member or zstd frame has begun and not ended.
  std::string damage;
};

InputFile::InputFile(const std::string& path) : state_(std::make_unique<State>(path)) {}
InputFile::~InputFile() = default;
InputFile::InputFile(InputFile&&) noexcept = default;

size_t InputFile::read(char* out, size_t size) {
  State& state = *state_;
  if (!state.damage.empty() || size == 0) return 0;
  size = std::min(size, size_t{1} << 30);  // zlib counts in 32 bits.
  switch (state.format) {
    case Format::gzip:
      return state.read_gzip(out, size);
    case Format::zstd:
      return state.read_zstd(out, size);
    default:
      return state.read_plain(out, size);
  }
}

const std::string& InputFile::damage() const { return state_->damage; }

int64_t InputFile::file_bytes() {
  do state_->at = state_->end;
  while (state_->refill());
  return state_->raw_bytes;
}

std::string InputFile::file_xxh3() {
  file_bytes();
  return fmt::format("{:016x}", XXH3_64bits_digest(state_->hash));
}

std::string file_xxh3(const std::string& path) { return InputFile(path).file_xxh3(); }

double gzip_bits_per_byte(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  COHORT_CHECK_INPUT(file, "{}: cannot be read: {}", path, std::strerror(errno));
  z_stream deflater{};
  if (deflateInit2(&deflater, 9, Z_DEFLATED, kGzipFraming, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    std::fclose(file);
    throw Error("zlib: out of memory");
  }
  std::vector<unsigned char> in(kBufferBytes), out(kBufferBytes);
  int64_t read = 0, written = 0;
  int flush = Z_NO_FLUSH;
  while (flush != Z_FINISH) {
    deflater.next_in = in.data();
    deflater.avail_in = static_cast<uInt>(std::fread(in.data(), 1, in.size(), file));
    read += deflater.avail_in;
    if (deflater.avail_in < in.size()) flush = Z_FINISH;
    do {
      deflater.next_out = out.data();
      deflater.avail_out = static_cast<uInt>(out.size());
      deflate(&deflater, flush);
      written += static_cast<int64_t>(out.size() - deflater.avail_out);
    } while (deflater.avail_out == 0);
  }
  deflateEnd(&deflater);
  std::fclose(file);
  return read ? 8.0 * static_cast<double>(written) / static_cast<double>(read) : 0.0;
}

}  // namespace cohort::core
