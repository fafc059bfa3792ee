// The whole runner, apart from `executorch.so`, as one translation unit: reading the JSON library
// takes most of the compiler's time.
#include "files.cpp"
#include "machine.cpp"
#include "onnxruntime.cpp"
#include "request.cpp"
#include "runtimes.cpp"
#include "serve.cpp"
#include "tasks.cpp"
