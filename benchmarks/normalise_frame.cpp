// Counts the instructions that normalising one frame takes, under QEMU with the counting plugin.
//
// What an app does for a network with a float32 input: RGBA bytes, 224 x 224, become three planes of
// float32, value * 1 / (255 std) - mean / std. Prints the count of the tenth frame.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

constexpr long kReadCount = 0x6d6f62;  // mobiledeploy/devices/qemu/plugin.c has the same number
constexpr int kSide = 224, kFrames = 10;

int64_t instructions(int (&ends)[2]) {
  int64_t count = -1;
  syscall(kReadCount, ends[1]);
  return read(ends[0], &count, sizeof count) == sizeof count ? count : -1;
}

__attribute__((noinline)) void normalise(const uint8_t* __restrict rgba, float* __restrict planes,
                                         int pixels) {
  constexpr float kMean[] = {0.485f, 0.456f, 0.406f}, kStd[] = {0.229f, 0.224f, 0.225f};
  float* __restrict r = planes;
  float* __restrict g = planes + pixels;
  float* __restrict b = planes + 2 * pixels;
  for (int i = 0; i < pixels; i++) {
    r[i] = rgba[4 * i] * (1 / (255 * kStd[0])) - kMean[0] / kStd[0];
    g[i] = rgba[4 * i + 1] * (1 / (255 * kStd[1])) - kMean[1] / kStd[1];
    b[i] = rgba[4 * i + 2] * (1 / (255 * kStd[2])) - kMean[2] / kStd[2];
  }
}

}  // namespace

int main() {
  int ends[2];
  if (pipe2(ends, O_NONBLOCK) != 0) return 1;
  std::vector<uint8_t> frame(4 * kSide * kSide, 77);
  std::vector<float> planes(3 * kSide * kSide);
  int64_t spent = 0;
  for (int i = 0; i < kFrames; i++) {
    instructions(ends);
    const int64_t before = instructions(ends), overhead = instructions(ends) - before;
    const int64_t start = instructions(ends);
    normalise(frame.data(), planes.data(), kSide * kSide);
    spent = instructions(ends) - start - overhead;
    if (start < 0) return 1;
  }
  printf("%ld %f\n", static_cast<long>(spent), planes[12345]);
}
