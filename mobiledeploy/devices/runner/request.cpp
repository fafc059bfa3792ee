// Reads and checks the line of a request, as `devices/agent/request.py` does.
#include <algorithm>
#include <cmath>
#include <set>

#include "runner.h"

namespace runner {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 40;  // of a file; sums of sizes stay below 2^63
constexpr int64_t kMaxInt = INT32_MAX;
constexpr int64_t kMaxThreads = 1024;  // as the command line
constexpr size_t kShown = 60;          // bytes of a value in an error
constexpr size_t kReason = 200;        // of what the parser says, which quotes the request

}  // namespace

Failure unreadable(const std::string& reason) {
  return {"RuntimeFailedError", "The device cannot read the request: " + reason,
          "Run the command again. If it fails again, the connection is unreliable, or the two "
          "sides are of different versions of mobiledeploy."};
}

namespace {

// Lists and objects are not printed: they may be nested too deeply for that.
std::string shown(const json& value) {
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  const std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() <= kShown ? text : text.substr(0, kShown) + "...";
}

// A value of the request and its path, for errors.
class Value {
 public:
  Value(const json& value, std::string path) : value_(value), path_(std::move(path)) {}

  Value at(const std::string& key) const {
    const std::string path = path_.empty() ? key : path_ + "." + key;
    if (!value_.is_object()) throw wrong("an object");
    const auto found = value_.find(key);
    if (found == value_.end()) throw unreadable(path + " is missing.");
    return {*found, path};
  }

  bool is_null() const { return value_.is_null(); }

  std::string text() const {
    if (!value_.is_string()) throw wrong("a string");
    return value_.get<std::string>();
  }

  int64_t integer(int64_t least, int64_t most) const {
    const bool fits = value_.is_number_integer() &&
                      !(value_.is_number_unsigned() && value_.get<uint64_t>() > INT64_MAX);
    if (!fits || value_.get<int64_t>() < least || value_.get<int64_t>() > most)
      throw wrong("an integer from " + std::to_string(least) + " to " + std::to_string(most));
    return value_.get<int64_t>();
  }

  double seconds() const {
    const double found = value_.is_number() ? value_.get<double>() : 0;
    if (!(found > 0 && std::isfinite(found))) throw wrong("a number above 0");
    return found;
  }

  // The elements of a list, each as `read` returns it.
  template <typename Read>
  auto list(const Read& read) const {
    if (!value_.is_array()) throw wrong("a list");
    std::vector<decltype(read(*this))> found;
    for (size_t i = 0; i < value_.size(); i++)
      found.push_back(read(Value(value_[i], path_ + "[" + std::to_string(i) + "]")));
    return found;
  }

  Failure wrong(const std::string& expected) const {
    return unreadable((path_.empty() ? "it" : path_) + " is " + shown(value_) + "; expected " +
                      expected + ".");
  }

 private:
  const json& value_;
  std::string path_;
};

// The path of a file inside the folder of the session.
std::string inner_path(const Value& value) {
  const std::string name = value.text();
  const auto refuse = [&] { throw value.wrong("a path inside the folder of the session"); };
  if (name.find('\0') != std::string::npos) refuse();
  for (size_t from = 0; from <= name.size();) {
    const size_t to = std::min(name.find('/', from), name.size());
    const std::string part = name.substr(from, to - from);
    if (part.empty() || part == "." || part == "..") refuse();
    from = to + 1;
  }
  return name;
}

FileEntry file_entry(const Value& value) {
  return {inner_path(value.at("name")), value.at("sha256").text(),
          static_cast<uint64_t>(value.at("size").integer(0, kMaxSize))};
}

// The name of one of the files that are sent.
std::string sent_file(const Value& value, const std::set<std::string>& sent) {
  const std::string name = value.text();
  if (!sent.count(name)) throw value.wrong("the name of a file of the request");
  return name;
}

ArtifactEntry artifact_entry(const Value& value, const std::set<std::string>& sent) {
  ArtifactEntry artifact{sent_file(value.at("file"), sent), value.at("label").text(), {}};
  const Value inputs = value.at("inputs");
  if (!inputs.is_null()) artifact.inputs = sent_file(inputs, sent);
  return artifact;
}

// What a task needs: how many artifacts, and whether rounds.
struct Needs {
  const char* task;
  size_t least, most;
  bool rounds;
};

constexpr Needs kNeeds[] = {{"bench", 1, SIZE_MAX, true},
                            {"instructions", 1, 1, true},
                            {"outputs", 1, SIZE_MAX, false},
                            {"profile", 1, 1, true},
                            {"load", 0, 0, false}};

void check_task(const Value& message, const Request& request) {
  for (const Needs& needs : kNeeds) {
    if (request.task != needs.task) continue;
    const size_t count = request.artifacts.size();
    if (count < needs.least || count > needs.most)
      throw unreadable("it has " + std::to_string(count) + " artifacts; " + request.task +
                       " takes " + std::to_string(needs.least) +
                       (needs.most > needs.least ? " or more." : "."));
    if (needs.rounds) message.at("rounds").integer(1, kMaxInt);
    return;
  }
  throw message.at("task").wrong("a task of the native runner");
}

}  // namespace

Request parse_request(const std::string& line) {
  json document;
  try {
    document = json::parse(line);
  } catch (const json::exception& error) {
    throw unreadable(std::string(error.what()).substr(0, kReason) + ".");
  }
  const Value message(document, "");
  Request request;
  request.task = message.at("task").text();
  request.files = message.at("files").list(file_entry);
  std::set<std::string> sent;
  for (const FileEntry& file : request.files) sent.insert(file.name);
  request.artifacts = message.at("artifacts").list(
      [&](const Value& value) { return artifact_entry(value, sent); });
  request.threads = message.at("threads").integer(1, kMaxThreads);
  request.affinity = message.at("affinity").list(
      [](const Value& value) { return static_cast<int>(value.integer(0, kMaxInt)); });
  request.rounds = message.at("rounds").integer(0, kMaxInt);
  request.warmup = message.at("warmup").integer(0, kMaxInt);
  request.seed = static_cast<uint32_t>(message.at("seed").integer(INT64_MIN, INT64_MAX));
  const Value duration = message.at("duration_s");
  if (!duration.is_null()) request.duration_s = duration.seconds();
  request.limit_s = message.at("limit_s").seconds();
  check_task(message, request);
  return request;
}

}  // namespace runner
