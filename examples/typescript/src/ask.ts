// Asks a question about a video, and prints the answer. Once: npm install && npm run build; then:
// VIDEOQA_URL=... VIDEOQA_API_KEY=... npm start URL QUESTION
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { paths } from "./videoqa.js";

const [url, question] = process.argv.slice(2);
if (!process.env.VIDEOQA_URL || !url || !question) {
  console.error("usage: VIDEOQA_URL=... VIDEOQA_API_KEY=... npm start URL QUESTION");
  process.exit(2);
}
const videoqa = createClient<paths>({
  baseUrl: process.env.VIDEOQA_URL,
  headers: { authorization: `Bearer ${process.env.VIDEOQA_API_KEY}` },
  redirect: "manual",
});

// A submit that is sent again with the same key makes no second job.
const submitted = await videoqa.POST("/v1/jobs", {
  params: { header: { "Idempotency-Key": randomUUID() } },
  body: { inputs: [url], questions: [question] },
});
if (!submitted.data) fail(submitted.error);

let job = submitted.data;
while (!["succeeded", "failed", "canceled", "expired"].includes(job.state)) {
  const seen = await videoqa.GET("/v1/jobs/{job_id}", {
    params: { path: { job_id: job.id }, query: { wait: "30" } },
  });
  if (!seen.data) fail(seen.error);
  job = seen.data;
}
const result = await videoqa.GET("/v1/jobs/{job_id}/result", {
  params: { path: { job_id: job.id } },
});
if (!result.data || typeof result.data === "string") fail(result.error);
for (const answer of result.data.answers) console.log(answer.text);

function fail(problem: { code?: string; detail?: string } | undefined): never {
  console.error(`${problem?.code ?? "no_answer"}: ${problem?.detail ?? "the gateway gave no answer"}`);
  process.exit(1);
}
