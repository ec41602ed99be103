// OpenAI's client for JavaScript asks a server by both APIs, streamed and not.
//
//   node tests/clients/openai.mjs http://127.0.0.1:8000 MODEL "Who built the harbour?"
//
// EXSEARCH_NODE_MODULES names the folder with the package `openai`. Prints what it got as JSON.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const modules = process.env.EXSEARCH_NODE_MODULES ?? "node_modules";
const require = createRequire(pathToFileURL(`${modules}/`));
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));

const [address, model, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: question }];

const models = [];
for await (const each of client.models.list()) models.push(each.id);

const chat = await client.chat.completions.create({ model, messages });
let streamed = "";
let thought = "";
let usage = null;
const chunks = await client.chat.completions.create({
  model,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of chunks) {
  streamed += chunk.choices[0]?.delta.content ?? "";
  thought += chunk.choices[0]?.delta.reasoning_content ?? "";
  usage = chunk.usage ?? usage;
}

const response = await client.responses.create({ model, input: question });
const events = [];
const stream = client.responses.stream({ model, input: question });
for await (const event of stream) events.push(event.type);
const final = await stream.finalResponse();
const again = await client.responses.retrieve(response.id);

let refused = null;
try {
  await client.chat.completions.create({ model: "another", messages });
} catch (error) {
  refused = { status: error.status, code: error.code, param: error.param };
}

console.log(
  JSON.stringify({ models, chat, streamed, thought, usage, response, events, final, again, refused }),
);
