#include "keyseek/error.hpp"

#include <gtest/gtest.h>

#include <set>

#include "base/fail.hpp"

namespace keyseek {
namespace {

TEST(Error, CodesHaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const auto code : {ErrorCode::invalid_argument, ErrorCode::not_finite, ErrorCode::io,
                          ErrorCode::corrupt, ErrorCode::unsupported, ErrorCode::cancelled}) {
    names.insert(to_string(code));
  }
  EXPECT_EQ(names.size(), 6U);
  EXPECT_EQ(to_string(ErrorCode::not_finite), "not_finite");
}

TEST(Error, FailCarriesCodeAndSentence) {
  try {
    fail(ErrorCode::corrupt, "section {} ends at {}", "graph", 17);
    FAIL() << "returned";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::corrupt);
    EXPECT_STREQ(e.what(), "section graph ends at 17");
  }
}

TEST(Error, RequireRefusesOnlyWhatIsWrong) {
  EXPECT_NO_THROW(require(true, "k is {}", 1));
  try {
    require(false, "k is {}, must be at least 1", 0);
    FAIL() << "not refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_STREQ(e.what(), "k is 0, must be at least 1");
  }
}

}  // namespace
}  // namespace keyseek
