#include "core/data/data_card.h"

namespace cohort::core {
namespace {

nlohmann::ordered_json counts(const SourceCard& source) {
  return {{"file_bytes", source.file_bytes},
          {"documents", source.documents},
          {"validation_documents", source.validation_documents},
          {"tokens", source.tokens},
          {"text_bytes", source.text_bytes},
          {"dropped",
           {{"duplicates", source.duplicates},
            {"too_short", source.too_short},
            {"broken", source.broken}}}};
}

nlohmann::ordered_json set_json(const SetCard& set) {
  return {{"documents", set.documents}, {"tokens", set.tokens}, {"bytes", set.bytes}};
}

}  // namespace

SourceCard DataCard::total() const {
  SourceCard sum;
  for (const auto& source : sources) {
    sum.file_bytes += source.file_bytes;
    sum.documents += source.documents;
    sum.validation_documents += source.validation_documents;
    sum.tokens += source.tokens;
    sum.text_bytes += source.text_bytes;
    sum.duplicates += source.duplicates;
    sum.too_short += source.too_short;
    sum.broken += source.broken;
  }
  return sum;
}

nlohmann::ordered_json DataCard::to_json() const {
  nlohmann::ordered_json json{
      {"made_by", "cohort data prepare"}, {"options", options}, {"tokenizer", tokenizer}};
  json["total"] = counts(total());
  json["train"] = set_json(train);
  json["validation"] = set_json(validation);
  if (validation.documents > 0) {
    json["validation"]["text"] = "validation.txt";
    json["validation"]["gzip_bits_per_byte"] = validation_gzip_bits_per_byte;
  }
  json["sources"] = nlohmann::ordered_json::array();
  for (const auto& source : sources) {
    nlohmann::ordered_json entry{{"path", source.path}, {"xxh3", source.xxh3}};
    entry.update(counts(source));
    if (!source.reasons.empty()) entry["broken_reasons"] = source.reasons;
    json["sources"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace cohort::core
