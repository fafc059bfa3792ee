// onnxruntime-node: MODEL INPUTS.npy OUT.f32
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const [model, inputs, out] = process.argv.slice(2);
const ort = createRequire(process.cwd() + "/")("onnxruntime-node");
const file = readFileSync(inputs);
const start = 10 + file.readUInt16LE(8); // NumPy's format 1.0: magic, length, header
const shape = file.toString("latin1", 10, start).match(/'shape': \(([^)]*)\)/)[1].split(",").map(Number);
const images = new Float32Array(file.buffer.slice(file.byteOffset + start, file.byteOffset + file.length));
const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1 });
const { logits } = await session.run({ input: new ort.Tensor("float32", images, shape) });
writeFileSync(out, new Uint8Array(logits.data.buffer, logits.data.byteOffset, logits.data.byteLength));
process.exit(0);
