// The tasks, as in `devices/agent/tasks.py`: time artifacts, count their instructions, time their
// operators, or only run them.
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <new>
#include <random>

#include "runner.h"

namespace runner {
namespace {

constexpr int kNoiseBatches = 2;   // where no inputs were sent
constexpr float kDeviation = 74;   // of integers from -128 to 127
constexpr double kProgressEveryS = 0.2;
constexpr int kMinRounds = 2;
constexpr int kRunsPerRound = 2;   // the second one counts: the weights are in the caches again
constexpr long kReadCount = 0x6d6f62;  // devices/qemu/plugin.c has the same number

double now_s() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// A network and its samples.
struct Loaded {
  std::string label;
  std::unique_ptr<Network> network;
  Array samples;

  void run() { network->run(samples.data()); }
};

// Noise of two batches: pixels, or the range of normalised images.
Array noise_for(const std::string& label, const Network& network) try {
  Shape shape{kNoiseBatches * product({network.batch_size})};
  shape.insert(shape.end(), network.input_shape.begin(), network.input_shape.end());
  Array noise(network.input_type, shape);
  std::mt19937 random(0);
  for (int64_t i = 0; i < product(shape); i++) {
    const auto byte = static_cast<uint8_t>(random() & 255);
    if (noise.type == kUint8)
      noise.data()[i] = byte;
    else
      noise.floats()[i] = static_cast<int8_t>(byte) / kDeviation;
  }
  return noise;
} catch (const std::bad_alloc&) {
  throw Failure{"ArtifactError",
                label + " takes batches of " + std::to_string(network.batch_size) +
                    " samples of the shape (" + joined(network.input_shape) +
                    "), for which there is no memory.",
                "Export the model again: the file is damaged."};
}

// The inputs that were sent, or noise.
Array samples_for(const ArtifactEntry& artifact, const std::string& folder, const Network& network) {
  const Shape& sample = network.input_shape;
  if (artifact.inputs) {
    const std::string& label = artifact.label;
    Array given = from_npy(read_file(folder + "/" + *artifact.inputs), label);
    if (given.shape.empty() || given.shape[0] < 1 ||
        Shape(given.shape.begin() + 1, given.shape.end()) != sample)
      throw Failure{"RuntimeFailedError",
                    label + " takes samples of the shape (" + joined(sample) +
                        "); it was given (" + joined(given.shape) + ").",
                    "Pass samples of that shape."};
    if (given.type != network.input_type)
      throw Failure{"RuntimeFailedError",
                    label + " takes " + name_of(network.input_type) + " samples; it was given " +
                        name_of(given.type) + ".",
                    "Pass samples of that type."};
    if (given.shape[0] % network.batch_size)
      throw Failure{"RuntimeFailedError",
                    "The network takes " + std::to_string(network.batch_size) +
                        " samples at a time; it was given " + std::to_string(given.shape[0]) + ".",
                    "Pass a multiple of " + std::to_string(network.batch_size) + " samples."};
    return given;
  }
  return noise_for(artifact.label, network);
}

Loaded load(const Request& request, const ArtifactEntry& artifact, const std::string& folder,
            const Send& send) {
  send({{"loading", artifact.label}});
  auto network = open_network(folder + "/" + artifact.file, artifact.label, request.threads);
  Array samples = samples_for(artifact, folder, *network);
  return {artifact.label, std::move(network), std::move(samples)};
}

// Loads the first artifact of this process and runs it once; measures both.
Loaded load_fresh(const Request& request, const ArtifactEntry& artifact, const std::string& folder,
                  const Send& send, json* fresh) {
  const std::string& label = artifact.label;
  const std::string path = folder + "/" + artifact.file;
  send({{"loading", label}});
  load_runtime(suffix_of(path), label);
  read_file(path);  // into the page cache
  const PeakMemory memory;
  const double began = now_s();
  auto network = open_network(path, label, request.threads);
  const double ready = now_s();
  Array samples = samples_for(artifact, folder, *network);
  Loaded loaded{label, std::move(network), std::move(samples)};
  const double prepared = now_s();
  loaded.run();
  const double ran = now_s();
  *fresh = {{"runtime", loaded.network->runtime},
            {"load_ms", 1e3 * (ready - began)},
            {"first_ms", 1e3 * (ran - prepared)},
            {"peak_memory_bytes", memory.added_bytes()}};
  return loaded;
}

Shape row_shape(const Array& array) { return {array.shape.begin() + 1, array.shape.end()}; }

// Runs all samples, one batch at a time; returns each output, (N, ...), as a .npy in base64.
json outputs_of(Loaded& loaded, const Send& send) {
  Network& network = *loaded.network;
  std::vector<Array> all;
  const int64_t count = loaded.samples.shape[0];
  for (int64_t start = 0; start < count; start += network.batch_size) {
    network.run(loaded.samples.data() + start * network.sample_bytes());
    const std::vector<Array> outputs = network.outputs();
    for (size_t i = 0; i < all.size(); i++) {
      if (row_shape(outputs[i]) != row_shape(all[i]))
        throw wrong_output(loaded.label, "rows whose shape depends on the image");
      all[i].append(outputs[i]);
    }
    if (all.empty()) all = outputs;
    send({{"progress", static_cast<double>(start + network.batch_size) / count}});
  }
  json encoded = json::array();
  for (const Array& output : all) encoded.push_back(base64(to_npy(output)));
  return encoded;
}

// Sends the share of the rounds that are done, at most five times a second.
class Progress {
 public:
  Progress(const Send& send, double rounds, double duration_s)
      : send_(send), rounds_(rounds), duration_s_(duration_s) {}

  void operator()(int done) {
    const double now = now_s();
    if (now - last_ < kProgressEveryS) return;
    last_ = now;
    const double share = duration_s_ > 0 ? (now - began_) / duration_s_ : done / rounds_;
    send_({{"progress", std::min(1.0, share)}});
  }

 private:
  const Send& send_;
  double rounds_, duration_s_, began_ = now_s(), last_ = began_;
};

void nothing(const json&) {}

// Times the networks round by round, in an order that is shuffled anew; see `agent/timing.py`.
json interleaved(std::vector<Loaded>& all, const Request& request, const Send& send) {
  std::mt19937 random(request.seed);
  std::vector<std::vector<double>> times_ms(all.size());
  std::vector<size_t> order(all.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = i;
  const auto round = [&](bool keep) {
    std::shuffle(order.begin(), order.end(), random);
    for (size_t index : order) {
      all[index].run();
      const double began = now_s();
      all[index].run();
      const double elapsed = now_s() - began;
      if (keep) times_ms[index].push_back(1e3 * elapsed);
    }
  };
  Progress progress(send, request.rounds, request.duration_s.value_or(0));
  for (int i = 0; i < request.warmup; i++) {
    round(false);
    progress(0);
  }
  const double began = now_s();
  const auto is_done = [&](int done) {
    if (!request.duration_s) return done >= request.rounds;
    return done >= kMinRounds && now_s() - began >= *request.duration_s;
  };
  for (int done = 0; !is_done(done);) {
    round(true);
    progress(++done);
  }
  return times_ms;
}

json bench(const Request& request, const std::string& folder, const Send& send) {
  std::vector<Loaded> all;
  json fresh;
  for (const ArtifactEntry& artifact : request.artifacts)
    all.push_back(all.empty() ? load_fresh(request, artifact, folder, send, &fresh)
                              : load(request, artifact, folder, send));
  const json before = conditions();
  const json times_ms = interleaved(all, request, send);
  const json after = conditions();
  json outputs = json::array();
  for (size_t i = 0; i < all.size(); i++)
    outputs.push_back(request.artifacts[i].inputs ? outputs_of(all[i], nothing) : json());
  return {{"fresh", fresh},
          {"times_ms", times_ms},
          {"conditions", {{"before", before}, {"after", after}}},
          {"outputs", outputs}};
}

json run_only(const Request& request, const std::string& folder, const Send& send) {
  json inputs = json::array(), outputs = json::array();
  for (const ArtifactEntry& artifact : request.artifacts) {
    Loaded loaded = load(request, artifact, folder, send);
    inputs.push_back(artifact.inputs ? json() : json(base64(to_npy(loaded.samples))));
    outputs.push_back(outputs_of(loaded, send));
  }
  return {{"inputs", inputs}, {"outputs", outputs}};
}

// Returns, when called, the number of instructions that the process has executed.
class InstructionCounter {
 public:
  InstructionCounter() {
    if (pipe2(pipe_, O_NONBLOCK) != 0) pipe_[0] = pipe_[1] = -1;
  }

  int64_t operator()() const {
    int64_t count = 0;
    syscall(kReadCount, pipe_[1]);
    if (read(pipe_[0], &count, sizeof count) != sizeof count)
      throw Failure{"RuntimeFailedError",
                    "Instructions cannot be counted on this device: it does not run under a QEMU "
                    "that has loaded the counting plugin.",
                    "Use a QEMU (user mode) that can load plugins: qemu-aarch64 from Debian's "
                    "package qemu-user, not the static one from qemu-user-static."};
    return count;
  }

 private:
  int pipe_[2];
};

json instructions(const Request& request, const std::string& folder, const Send& send) {
  const ArtifactEntry& artifact = request.artifacts.at(0);
  Loaded loaded = load(request, artifact, folder, send);
  const InstructionCounter counter;
  for (int i = 0; i < request.warmup; i++) loaded.run();
  int64_t before = counter();
  const int64_t overhead = counter() - before;  // of the counting itself
  json counts = json::array();
  for (int i = 0; i < request.rounds; i++) {
    before = counter();
    loaded.run();
    counts.push_back(counter() - before - overhead);
  }
  return {{"runtime", loaded.network->runtime},
          {"instructions", counts},
          {"outputs", json::array({artifact.inputs ? outputs_of(loaded, nothing) : json()})}};
}

// Runs twice; returns the time of the second run in microseconds.
template <typename Run>
double second_run_us(const Run& run) {
  run();
  const double began = now_s();
  run();
  return 1e6 * (now_s() - began);
}

// Times every operator in whole inferences, in turn with the network without a profiler. Each round
// runs twice; see `agent/operators.py`.
json time_operators(const Request& request, const std::string& folder, Loaded& loaded,
                    std::vector<double>* whole_us, const Send& send) {
  const ArtifactEntry& artifact = request.artifacts.at(0);
  const auto profiled = open_network(folder + "/" + artifact.file, artifact.label,
                                     request.threads, true);
  const size_t warmup = request.warmup, rounds = warmup + request.rounds;
  for (size_t done = 1; done <= rounds; done++) {
    whole_us->push_back(second_run_us([&] { loaded.run(); }));
    for (int i = 0; i < kRunsPerRound; i++) profiled->run(loaded.samples.data());
    send({{"progress", static_cast<double>(done) / static_cast<double>(rounds)}});
  }
  json operators = json::array();
  for (const OperatorTimes& each : profiled->end_profile()) {
    if (each.times_us.size() != kRunsPerRound * rounds)
      throw Failure{"RuntimeFailedError",
                    "The profile has " + std::to_string(each.times_us.size()) + " runs of " +
                        each.name + ", not " + std::to_string(kRunsPerRound * rounds) + ".",
                    "Use fewer --runs: ONNX Runtime's profiler has room for a million events."};
    json times_us = json::array();
    for (size_t i = warmup; i < rounds; i++)
      times_us.push_back(each.times_us[kRunsPerRound * i + kRunsPerRound - 1]);
    operators.push_back({{"name", each.name}, {"kind", each.kind}, {"times_us", times_us}});
  }
  return operators;
}

json profile(const Request& request, const std::string& folder, const Send& send) {
  Loaded loaded = load(request, request.artifacts.at(0), folder, send);
  std::vector<double> whole_us;
  const json operators = time_operators(request, folder, loaded, &whole_us, send);
  return {{"runtime", loaded.network->runtime}, {"whole_us", whole_us}, {"operators", operators}};
}

json load_only(const Request&, const std::string&, const Send&) {
  return {{"runtimes", load_all_runtimes()}};
}

}  // namespace

json run_task(const Request& request, const std::string& folder, const Send& send) {
  static const std::map<std::string, json (*)(const Request&, const std::string&, const Send&)> tasks =
      {{"bench", bench},
       {"instructions", instructions},
       {"outputs", run_only},
       {"profile", profile},
       {"load", load_only}};
  return tasks.at(request.task)(request, folder, send);
}

}  // namespace runner
