"""Stand-ins for the native runners, with the flags and the output of the real ones.

They run real inferences. `executor_runner` of ExecuTorch 1.4 logs to stderr and writes raw outputs;
`onnxruntime_perf_test` of ONNX Runtime prints a summary and writes a result file with one row per
inference.
"""

import stat
import sys
from pathlib import Path

EXECUTOR_RUNNER = """#!{python}
import sys, time, warnings
warnings.simplefilter("ignore")
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
known = set("model_path inputs output_file num_executions cpu_threads print_output".split())
if set(flags) - known or not all(word.startswith("--") for word in sys.argv[1:]):
    print("ERROR: unknown command line flag", file=sys.stderr); sys.exit(1)
def log(line, text):
    moment = int(time.monotonic() * 1e6) % 1000000
    source = f"executorch:executor_runner.cpp:{{line}}"
    print(f"I 00:00:00.{{moment:06d}} {{source}}] {{text}}", file=sys.stderr, flush=True)
import numpy as np, torch
from mobiledeploy.devices.agent.runtimes import executorch_bindings
log(343, f"Resetting threadpool with num threads = {{flags['cpu_threads']}}")
began = time.perf_counter()
program = executorch_bindings()._load_program(flags["model_path"])
method = program.load_method("forward")
log(624, f"Model loaded in {{1e3 * (time.perf_counter() - began):f}} ms.")
meta = method.method_meta().input_tensor_meta(0)
shape, dtype = meta.sizes(), {{0: np.uint8, 6: np.float32}}[meta.dtype()]
values = np.ones(shape, dtype)
if "inputs" in flags:
    log(397, "Loading inputs from input file(s).")
    values = np.fromfile(flags["inputs"], dtype).reshape(shape)
runs, total = int(flags.get("num_executions", 1)), 0.0
for i in range(runs):
    began = time.perf_counter()
    outputs = method((torch.from_numpy(values),))
    took = 1e3 * (time.perf_counter() - began)
    total += took
    log(781, f"Iteration {{i + 1}} of {{runs}}: {{took:f}} ms")
log(790, f"Model executed successfully {{runs}} time(s) in {{total:f}} ms.")
log(796, f"{{len(outputs)}} outputs: ")
for number, output in enumerate(outputs if "output_file" in flags else ()):
    log(809, f"Writing output to file: {{flags['output_file']}}-{{number}}.bin")
    output.numpy().tofile(f"{{flags['output_file']}}-{{number}}.bin")
"""

PERF_TEST = """#!{python}
import sys, time
words, flags, positional = sys.argv[1:], {{}}, []
while words:
    word = words.pop(0)
    if word in ("-I", "-Z"):
        flags[word] = True
    elif word.startswith("-"):
        flags[word] = words.pop(0)
    else:
        positional.append(word)
model, result = positional
assert (flags["-m"], flags["-e"], flags["-I"]) == ("times", "cpu", True), flags
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(flags["-x"])
print(f"Setting intra_op_num_threads to {{flags['-x']}}")
print("Disabling intra-op thread spinning between runs")
began = time.perf_counter()
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
created = time.perf_counter() - began
info = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in info.shape]
values = np.random.default_rng(0).random(shape, np.float32)
def run():
    began = time.perf_counter()
    session.run(None, {{info.name: values}})
    return time.perf_counter() - began
first, times = run(), [run() for _ in range(int(flags["-r"]))]
print(f"Session creation time cost: {{created:g}} s")
print(f"First inference time cost: {{int(1e3 * first)}} ms")
print(f"Total inference time cost: {{sum(times):g}} s\\nTotal inference requests: {{len(times)}}")
print(f"Average inference time cost total: {{1e3 * sum(times) / len(times):f}} ms")
print(f"Total inference run time: {{sum(times):g}} s\\nNumber of inferences per second: "
      f"{{len(times) / sum(times):g}} ")
print("Avg CPU usage: 98 %\\nPeak working set size: 50905088 bytes")
with open(result, "a") as rows:
    for number, seconds in enumerate(times):
        rows.write(f"{{model}},{{seconds:g}},50905088,98,{{number}}\\n")
"""


def write_runners(folder: Path) -> tuple[Path, Path]:
    """Write both runners; return their paths."""
    paths = []
    for name, text in (("executor_runner", EXECUTOR_RUNNER), ("onnxruntime_perf_test", PERF_TEST)):
        path = folder / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(path.stat().st_mode & ~stat.S_IXUSR)  # pushing has to make it executable
        paths.append(path)
    return paths[0], paths[1]
