// The machine in raw form, as `devices/agent/machine.py` describes it.
#include <dirent.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "runner.h"

namespace runner {
namespace {

constexpr int kMaxCores = 4096;
constexpr const char* kCpus = "/sys/devices/system/cpu";

std::vector<std::string> lines(const std::string& path) {
  std::vector<std::string> found;
  std::istringstream text(read_file(path));
  for (std::string line; std::getline(text, line);) found.push_back(line);
  return found;
}

std::vector<std::string> listed(const std::string& folder, const std::string& prefix) {
  std::vector<std::string> names;
  if (DIR* directory = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(directory)) {
      const std::string name = entry->d_name;
      const size_t size = prefix.size();
      if (name.compare(0, size, prefix) == 0 && name.size() > size && isdigit(name[size]))
        names.push_back(folder + "/" + name);
    }
    closedir(directory);
  }
  std::sort(names.begin(), names.end());
  return names;
}

// The number in one file of each folder that has it.
std::vector<double> numbers(const std::vector<std::string>& folders, const std::string& file) {
  std::vector<double> found;
  for (const std::string& folder : folders)
    for (const std::string& line : lines(folder + "/" + file)) {
      char* end = nullptr;
      const double value = strtod(line.c_str(), &end);
      if (end != line.c_str()) found.push_back(value);
      break;
    }
  return found;
}

json highest(const std::vector<double>& values, double unit) {
  if (values.empty()) return nullptr;
  return *std::max_element(values.begin(), values.end()) / unit;
}

// The highest frequency of each core in MHz, for cores whose system reports it.
json core_mhz(const std::vector<std::string>& folders) {
  json found = json::object();
  for (const std::string& folder : folders)
    for (double khz : numbers({folder}, "cpufreq/cpuinfo_max_freq"))
      found[folder.substr(folder.rfind("cpu") + 3)] = khz / 1000;
  return found;
}

bool starts(const std::string& line, const char* word) { return line.rfind(word, 0) == 0; }

// The first core's part of /proc/cpuinfo, and the board's lines at its end.
std::string processor() {
  std::string text;
  bool is_first = true;
  for (const std::string& line : lines("/proc/cpuinfo")) {
    if (line.empty()) is_first = false;
    if (is_first || starts(line, "Model") || starts(line, "Hardware"))
      text += (text.empty() ? "" : "\n") + line;
  }
  return text;
}

int64_t status_bytes(const std::string& field) {
  for (const std::string& line : lines("/proc/self/status"))
    if (starts(line, (field + ":").c_str()))
      return 1024 * std::stoll(line.substr(field.size() + 1));
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return 1024 * static_cast<int64_t>(usage.ru_maxrss);
}

json version_if(const char* library, const char* version) {
  return access((home_folder() + "/" + library).c_str(), R_OK) == 0 ? json(version) : json();
}

}  // namespace

std::string home_folder() {
  // the C library's loader, which started this program, lies beside it
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  const std::string loader(path, size < 0 ? 0 : size);
  return loader.substr(0, loader.rfind('/') == std::string::npos ? 0 : loader.rfind('/'));
}

std::vector<int> usable_cores() {
  std::vector<int> cores;
  cpu_set_t* set = CPU_ALLOC(kMaxCores);
  const size_t size = CPU_ALLOC_SIZE(kMaxCores);
  if (sched_getaffinity(0, size, set) == 0)
    for (int core = 0; core < kMaxCores; core++)
      if (CPU_ISSET_S(core, size, set)) cores.push_back(core);
  CPU_FREE(set);
  return cores;
}

bool products_saturate() {
#if defined(__x86_64__)
  return processor().find("vnni") == std::string::npos;
#else
  return false;
#endif
}

json conditions() {
  const std::string cpus = kCpus;
  const auto cores = listed(cpus, "cpu");
  const auto counts = numbers(cores, "thermal_throttle/core_throttle_count");
  double throttled = 0;
  for (double count : counts) throttled += count;
  const auto governor = lines(cpus + "/cpu0/cpufreq/scaling_governor");
  const auto firmware = lines("/sys/devices/platform/soc/soc:firmware/get_throttled");
  const auto zones = listed("/sys/class/thermal", "thermal_zone");
  return {
      {"temperature_c", highest(numbers(zones, "temp"), 1000)},
      {"frequency_mhz", highest(numbers(cores, "cpufreq/scaling_cur_freq"), 1000)},
      {"max_frequency_mhz", highest(numbers(cores, "cpufreq/cpuinfo_max_freq"), 1000)},
      {"governor", governor.empty() ? json() : json(governor[0])},
      {"throttle_count", counts.empty() ? json() : json(static_cast<int64_t>(throttled))},
      {"throttled_now",
       firmware.empty() ? json() : json(strtol(firmware[0].c_str(), nullptr, 16) & 15)},
  };
}

json describe() {
  utsname system{};
  uname(&system);
  json hwcap;
#if defined(__aarch64__)
  hwcap = json::array({getauxval(AT_HWCAP), getauxval(AT_HWCAP2)});
#endif
  return {
      {"protocol", kProtocol},
      {"system", system.sysname},
      {"architecture", system.machine},
      {"os", std::string(system.sysname) + " " + system.release},
      {"python", ""},
      {"executable", home_folder() + "/runner"},
      {"cores", usable_cores().size()},
      {"core_mhz", core_mhz(listed(kCpus, "cpu"))},
      {"processor", processor()},
      {"hwcap", hwcap},
      {"runtimes",
       {{"onnxruntime", version_if("libonnxruntime.so.1", ONNXRUNTIME_VERSION)},
        {"executorch", version_if("executorch.so", EXECUTORCH_VERSION)}}},
      {"conditions", conditions()},
  };
}

PeakMemory::PeakMemory() {
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the peak, where that is allowed
  before_ = status_bytes("VmRSS");
}

int64_t PeakMemory::added_bytes() const {
  return std::max<int64_t>(0, status_bytes("VmHWM") - before_);
}

}  // namespace runner
