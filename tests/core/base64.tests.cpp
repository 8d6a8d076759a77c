#include "core/io/base64.h"

#include "tests/catch.h"

using namespace cohort;

TEST_CASE("Base64 is RFC 4648's, and comes back", "[core-base64]") {
  for (const auto& [bytes, text] : {std::pair<std::string, std::string>{"", ""},
                                    {"f", "Zg=="},
                                    {"fo", "Zm8="},
                                    {"foo", "Zm9v"},
                                    {"foob", "Zm9vYg=="},
                                    {"fooba", "Zm9vYmE="},
                                    {"foobar", "Zm9vYmFy"},
                                    {std::string("\xff\xfe\0\x3e", 4), "//4APg=="}}) {
    CHECK(core::base64(bytes.data(), bytes.size()) == text);
    CHECK(core::from_base64(text) == bytes);
  }
  std::string all;
  for (int i = 0; i < 1000; ++i) all += static_cast<char>(i * 7);
  CHECK(core::from_base64(core::base64(all.data(), all.size())) == all);
}

TEST_CASE("What is no Base64 is told", "[core-base64]") {
  for (const char* text :
       {"Zg", "Zg=", "Z===", "====", "Zm 9", "Zm9v\n", "Zh==", "Zm9=", "Zm=v", "=m9v", "Zm9\xff"})
    CHECK_FALSE(core::from_base64(text));
}
