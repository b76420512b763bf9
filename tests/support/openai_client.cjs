// Calls of OpenAI's client on Node: one a line of standard input, as JSON; its outcome is a line of standard output.
const { createInterface } = require("node:readline");
const { OpenAI, toFile } = require("openai");

const client = new OpenAI({ maxRetries: 0, timeout: 30_000 });

const calls = {
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return names;
  },
  async chat({ body, options }) {
    const { data, response } = await client.chat.completions.create(body, options).withResponse();
    return { data, job: response.headers.get("x-videoqa-job-id") };
  },
  async stream({ body, leaveAfter }) {
    const stream = await client.chat.completions.create({ ...body, stream: true });
    const chunks = [];
    try {
      for await (const chunk of stream) {
        chunks.push(chunk);
        if (chunks.length === leaveAfter) break; // hangs up
      }
    } catch (error) {
      return { chunks, error: describe(error) };
    }
    return { chunks };
  },
  async stranger({ body }) {
    return new OpenAI({ apiKey: "vqa_wrong", maxRetries: 0 }).chat.completions.create(body);
  },
  async batch({ lines }) {
    const file = await client.files.create({
      file: await toFile(Buffer.from(lines), "lines.jsonl"),
      purpose: "batch",
    });
    const made = await client.batches.create({
      input_file_id: file.id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h",
    });
    return { file, made };
  },
  async wait({ id }) {
    let batch;
    do {
      await new Promise((resolve) => setTimeout(resolve, 100));
      batch = await client.batches.retrieve(id);
    } while (["validating", "in_progress", "finalizing"].includes(batch.status));
    const output = batch.output_file_id && (await (await client.files.content(batch.output_file_id)).text());
    const errors = batch.error_file_id && (await (await client.files.content(batch.error_file_id)).text());
    const listed = [];
    for await (const one of client.batches.list({ limit: 1 })) listed.push(one.id);
    return { batch, output, errors, listed };
  },
};

function describe(error) {
  const { name, status, code, param, type, message } = error;
  return { kind: error.constructor.name, name, status, code, param, type, message };
}

(async () => {
  for await (const line of createInterface({ input: process.stdin })) {
    const { name, ...fields } = JSON.parse(line);
    let outcome;
    try {
      outcome = { ok: await calls[name](fields) };
    } catch (error) {
      outcome = { error: describe(error) };
    }
    process.stdout.write(JSON.stringify(outcome) + "\n");
  }
})();
