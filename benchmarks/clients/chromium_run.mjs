// onnxruntime-web (WebAssembly) in headless Chromium: MODEL INPUTS.npy OUT.f32
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, extname, join } from "node:path";

const LIMIT_MS = 240_000;
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const [model, inputs, out] = process.argv.slice(2);
const file = readFileSync(inputs);
const start = 10 + file.readUInt16LE(8); // NumPy's format 1.0: magic, length, header
const shape = file.toString("latin1", 10, start).match(/'shape': \(([^)]*)\)/)[1].split(",").map(Number);
const page = `<script src="/dist/ort.min.js"></script><script>(async () => {
  const send = (path, body) => fetch(path, { method: "POST", body });
  try {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = "/dist/";
    const read = async (path) => (await fetch(path)).arrayBuffer();
    const session = await ort.InferenceSession.create(await read("/model"), { executionProviders: ["wasm"] });
    const images = new Float32Array(await read("/inputs"));
    const { logits } = await session.run({ input: new ort.Tensor("float32", images, ${JSON.stringify(shape)}) });
    await send("/logits", logits.data.slice().buffer);
  } catch (error) { await send("/error", String(error)); }
})();</script>`;
const profile = mkdtempSync(join(tmpdir(), "chromium-"));
let browser;

function stop(error) {
  if (error) console.error(error);
  browser?.on("exit", () => {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    process.exit(error ? 1 : 0);
  });
  if (browser?.pid) browser.kill();
  else process.exit(1);
}

async function receive(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  if (request.url === "/logits") writeFileSync(out, body);
  stop(request.url === "/logits" ? null : body.toString());
}

const server = createServer((request, response) => {
  const { method, url } = request;
  if (method === "POST") return receive(request).finally(() => response.end());
  response.setHeader("content-type", TYPES[extname(url)] ?? "text/html");
  if (url === "/") return response.end(page);
  if (url === "/model") return response.end(readFileSync(model));
  if (url === "/inputs") return response.end(file.subarray(start));
  if (url.startsWith("/dist/")) return response.end(readFileSync(join("node_modules/onnxruntime-web/dist", basename(url))));
  response.statusCode = 404;
  response.end();
});
server.listen(0, "127.0.0.1", () => {
  const options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
  browser = spawn("chromium", [...options, `--user-data-dir=${profile}`, `http://127.0.0.1:${server.address().port}/`], { stdio: "ignore" });
  browser.on("error", (error) => stop(String(error)));
});
setTimeout(() => stop(`no answer within ${LIMIT_MS / 1000} seconds`), LIMIT_MS).unref();
