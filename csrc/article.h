// The indefinite article of a class's name in a message: "an int", "a Linear". The one place that
// knows, for Python's messages too.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

namespace pyparam {

namespace article {

constexpr std::string_view kVowels = "aeiou";
// Capitals whose names begin with a vowel when they are spelled: "an LSTM".
constexpr std::string_view kSpelledWithVowel = "AEFHILMNORSX";

inline bool begins(std::string_view text, std::string_view start) {
  return text.substr(0, start.size()) == start;
}

// Written with a vowel first and spoken with a consonant: "a uint8", "a UserDict", "a OneCycleLR".
inline bool spoken_with_consonant(std::string_view lower) {
  if (begins(lower, "uni"))
    return !begins(lower, "unin") && !begins(lower, "unim") && !begins(lower, "unid");
  for (const std::string_view start :
       {"one", "once", "use", "usa", "usu", "ut", "ui", "uu", "unet", "url"})
    if (begins(lower, start)) return true;
  // A letter by itself.
  return begins(lower, "u") &&
         (lower.size() == 1 || std::isalpha(static_cast<unsigned char>(lower[1])) == 0);
}

}  // namespace article

inline const char* article_of(std::string_view name) {
  // "an _IncompatibleKeys".
  name.remove_prefix(std::min(name.find_first_not_of('_'), name.size()));
  std::string lower;
  size_t capitals = 0;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (capitals == lower.size() && std::isupper(byte) != 0) ++capitals;
    lower += static_cast<char>(std::tolower(byte));
  }
  if (lower.empty()) return "a";
  // The last of several capitals begins a word: "RMSNorm" is "RMS", "Norm".
  const bool word_follows =
      capitals < lower.size() && std::isalpha(static_cast<unsigned char>(lower[capitals])) != 0;
  const size_t spelled = word_follows && capitals > 0 ? capitals - 1 : capitals;
  // Two capitals or more without a vowel cannot be spoken but letter by letter.
  if (spelled >= 2 && lower.find_first_of(article::kVowels) >= spelled)
    return article::kSpelledWithVowel.find(name[0]) != std::string_view::npos ? "an" : "a";
  if (article::begins(lower, "ndarray")) return "an";
  if (article::kVowels.find(lower[0]) == std::string_view::npos) return "a";
  return article::spoken_with_consonant(lower) ? "a" : "an";
}

// "an int".
inline std::string with_article(std::string_view name) {
  return std::string(article_of(name)) + " " + std::string(name);
}

}  // namespace pyparam
