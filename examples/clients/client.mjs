// Sends a job to batchkeeper and prints its results. Node 18 or newer, no packages.
//
//   BATCHKEEPER_URL=http://127.0.0.1:8080 BATCHKEEPER_KEY=... node client.mjs job.json
//
// BATCHKEEPER_CLIENT is the client's name if it is not "default". BATCHKEEPER_POLL is the longest
// pause between two polls, in seconds.

import { createHash, createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const url = (process.env.BATCHKEEPER_URL ?? "http://127.0.0.1:8080").replace(/\/+$/, "");
const key = process.env.BATCHKEEPER_KEY;
const client = process.env.BATCHKEEPER_CLIENT ?? "default";
const poll = Number(process.env.BATCHKEEPER_POLL ?? 30);
const attempts = 8;

function fail(message) {
  console.error(message);
  process.exit(1);
}

/** The headers of signature v1: over the time, the method, path and query, and the raw body. */
function signed(method, target, body) {
  const timestamp = String(Math.floor(Date.now() / 1000));
  const hmac = createHmac("sha256", key);
  hmac.update(`${timestamp}.${method}.${target}.`).update(body);
  return {
    "X-Client-Id": client,
    "X-Timestamp": timestamp,
    "X-Signature": `v1=${hmac.digest("hex")}`,
  };
}

/** One request, repeated while the service is busy or out of reach. */
async function call(method, target, body = Buffer.alloc(0), headers = {}) {
  let message;
  for (let attempt = 0; attempt < attempts; attempt++) {
    let wait = 2 ** attempt;
    try {
      // Each request needs a new signature: a v1 signature is accepted once, and for 300 seconds.
      const answer = await fetch(url + target, {
        method,
        headers: { ...signed(method, target, body), ...headers },
        body: method === "POST" ? body : undefined,
      });
      const json = await answer.json();
      if (answer.status !== 429 && answer.status !== 503) {
        return { status: answer.status, headers: answer.headers, json };
      }
      message = json.message;
      wait = Number(answer.headers.get("retry-after") ?? 1);
    } catch (error) {
      message = String(error);
    }
    await sleep(wait * 1000);
  }
  fail(`gave up: ${message}`);
}

if (!key || !process.argv[2]) fail("usage: BATCHKEEPER_KEY=... node client.mjs job.json");
const body = await readFile(process.argv[2]);
// The same body has the same key, so that it is the same job: nothing is billed twice. To send a job that
// has failed again, change its body or this key.
const sent = await call("POST", "/api/v1/generate-descriptions", body, {
  "Content-Type": "application/json",
  "Idempotency-Key": createHash("sha256").update(body).digest("hex"),
});
if (sent.status >= 300) fail(`refused: ${sent.status} ${sent.json.code}: ${sent.json.message}`);
console.error(`job ${sent.json.job_id}`);
let results;
for (;;) {
  results = await call("GET", `/api/v1/batch-results/${sent.json.job_id}`);
  if (results.status !== 202) break;
  // A webhook reports the end immediately. Poll if the client cannot receive webhooks.
  await sleep(Math.min(Number(results.headers.get("retry-after") ?? 30), poll) * 1000);
}
if (results.status !== 200) fail(`${results.status} ${results.json.code}: ${results.json.message}`);
console.log(JSON.stringify(results.json, null, 1));
