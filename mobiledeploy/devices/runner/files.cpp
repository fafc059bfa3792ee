// Files of a request: their sha256, and arrays in NumPy's .npy format.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>

#include "runner.h"

namespace runner {
namespace {

constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t rotated(uint32_t x, int bits) { return x >> bits | x << (32 - bits); }

// FIPS 180-4, section 6.2.2.
void add_block(uint32_t (&state)[8], const unsigned char* block) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++)
    w[i] = uint32_t{block[4 * i]} << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 |
           block[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
    uint32_t b = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t e = rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25);
    uint32_t t = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + kRound[i] + w[i];
    uint32_t a = rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22);
    uint32_t u = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += t;
    s[0] = t + u;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

std::string sha256(const std::string& path) {
  uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::string data = read_file(path);
  const uint64_t bits = 8 * uint64_t{data.size()};
  data += '\x80';
  data.resize((data.size() + 8 + 63) / 64 * 64 - 8);
  for (int i = 7; i >= 0; i--) data += static_cast<char>(bits >> (8 * i));
  for (size_t at = 0; at < data.size(); at += 64)
    add_block(state, reinterpret_cast<const unsigned char*>(data.data()) + at);
  std::string hex;
  char word[9];
  for (uint32_t part : state) {
    snprintf(word, sizeof word, "%08x", part);
    hex += word;
  }
  return hex;
}

std::string base64(const std::string& data) {
  static const char* const digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t at = 0; at < data.size(); at += 3) {
    uint32_t group = 0;
    for (size_t i = 0; i < 3; i++)
      group = group << 8 | (at + i < data.size() ? static_cast<unsigned char>(data[at + i]) : 0u);
    for (size_t i = 0; i < 4; i++)
      text += at + i > data.size() ? '=' : digits[group >> (18 - 6 * i) & 63];
  }
  return text;
}

int64_t product(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape)
    if (__builtin_mul_overflow(count, size, &count) || count > kMaxValues) throw std::bad_alloc();
  return count;
}

std::string joined(const Shape& shape) {
  std::string text;
  for (int64_t size : shape) text += std::to_string(size) + ", ";
  return text.substr(0, text.empty() ? 0 : text.size() - 2);
}

Array::Array(Type type, Shape shape)
    : type(std::move(type)),
      shape(std::move(shape)),
      data_((product(this->shape) + kPadding) * size_of(this->type)) {}

void Array::append(const Array& rows) {
  data_.insert(data_.begin() + size_bytes(), rows.data(), rows.data() + rows.size_bytes());
  shape[0] += rows.shape[0];
}

// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0
std::string to_npy(const Array& array) {
  const std::string comma = array.shape.size() == 1 ? "," : "";
  std::string header = "{'descr': '" + array.type + "', 'fortran_order': False, 'shape': (" +
                       joined(array.shape) + comma + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string data("\x93NUMPY\x01\x00", 8);
  data += static_cast<char>(header.size() & 255);
  data += static_cast<char>(header.size() >> 8);
  data += header;
  data.append(reinterpret_cast<const char*>(array.data()), array.size_bytes());
  return data;
}

Array from_npy(const std::string& data, const std::string& label) {
  const auto unreadable = [&] {
    return Failure{"RuntimeFailedError",
                   "The inputs of " + label + " are not a .npy file of float32 or uint8 in C order.",
                   "Pass contiguous float32 or uint8 samples."};
  };
  if (data.size() < 10 || data.compare(0, 7, std::string("\x93NUMPY\x01", 7)) != 0)
    throw unreadable();
  const size_t length =
      static_cast<unsigned char>(data[8]) | static_cast<unsigned char>(data[9]) << 8;
  const std::string header = data.substr(10, length);
  const size_t open = header.find('('), close = header.find(')');
  const auto is = [&](const Type& type) {
    return header.find("'" + type + "'") != std::string::npos;
  };
  if (!(is(kFloat32) || is(kUint8)) ||
      header.find("'fortran_order': False") == std::string::npos || open == std::string::npos ||
      close == std::string::npos)
    throw unreadable();
  const Type type = is(kUint8) ? kUint8 : kFloat32;
  const uint64_t values = (data.size() - 10 - header.size()) / size_of(type);
  Shape shape;
  uint64_t count = 1;
  std::istringstream sizes(header.substr(open + 1, close - open - 1));
  for (std::string text; std::getline(sizes, text, ',');) {
    if (text.find_first_not_of(' ') == std::string::npos) continue;  // behind the last comma
    const uint64_t size = strtoull(text.c_str(), nullptr, 10);  // the highest for what is higher
    if (size > INT64_MAX || (size && count > values / size)) throw unreadable();
    shape.push_back(static_cast<int64_t>(size));
    count *= size;
  }
  if (data.size() != 10 + length + count * size_of(type)) throw unreadable();
  Array array(type, shape);
  memcpy(array.data(), data.data() + 10 + length, array.size_bytes());
  return array;
}

}  // namespace runner
