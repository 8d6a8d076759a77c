#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "core/metrics/metrics.h"
#include "core/metrics/report_charts.h"
#include "core/metrics/report_data.h"
#include "core/metrics/report_page.h"
#include "core/metrics/report_samples_script.h"
#include "core/metrics/report_script.h"
#include "core/metrics/report_style.h"

namespace cohort::core {
namespace {

/// JSON that may stand inside <script>: with no "<" in it, no text of the run can end the element
/// or open a comment. Bytes that are no UTF-8 are replaced.
std::string script_safe(const nlohmann::ordered_json& value) {
  std::string safe;
  for (const char c :
       value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)) {
    if (c == '<')
      safe += "\\u003c";
    else
      safe += c;
  }
  return safe;
}

void replace_once(std::string& page, const std::string& place, const std::string& text) {
  const size_t at = page.find(place);
  COHORT_CHECK(at != std::string::npos, "the report page has no place {}", place);
  page.replace(at, place.size(), text);
}

}  // namespace

std::string write_report(const std::string& dir, const std::string& out) {
  std::string page = kReportPage;
  replace_once(page, "@STYLE@", kReportStyle);
  replace_once(page, "@CHARTS@", kReportCharts);
  replace_once(page, "@SAMPLES@", kReportSamplesScript);
  replace_once(page, "@SCRIPT@", kReportScript);
  replace_once(page, "@RUN@", script_safe(report_data(dir)));

  // Renamed into place: who reloads the page while it is rewritten sees the old one or the new one.
  const std::string path =
      out.empty() ? (std::filesystem::path(dir) / "report.html").string() : out;
  const std::string unfinished = path + ".tmp";
  std::ofstream file(unfinished, std::ios::binary);
  file << page;
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(unfinished, path, error);
  COHORT_CHECK_INPUT(file && !error,
                     "{}: the report cannot be written there ({}); give another file with --out",
                     path,
                     error ? error.message() : std::strerror(errno));
  return path;
}

}  // namespace cohort::core
