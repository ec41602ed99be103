// The AI SDK's own transport and reader ask a server, and take every part that it sends.
//
//   node tests/clients/ui_stream.mjs http://127.0.0.1:8000 "Who built the harbour?"
//
// `npm install --prefix DIR ai@7` brings the package `ai`; EXSEARCH_NODE_MODULES names
// DIR/node_modules. Prints the message as the SDK has it, as JSON.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const modules = process.env.EXSEARCH_NODE_MODULES ?? "node_modules";
const require = createRequire(pathToFileURL(`${modules}/`));
const ai = await import(pathToFileURL(require.resolve("ai")));

const [address, question] = process.argv.slice(2);
const user = { id: "m1", role: "user", parts: [{ type: "text", text: question }] };

// Its chunks, each checked by the SDK's schema.
const reply = await fetch(`${address}/ui/chat`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ id: "c1", messages: [user], trigger: "submit-message" }),
});
if (!reply.ok) throw new Error(`${reply.status} ${await reply.text()}`);
const kinds = [];
const chunks = ai.parseJsonEventStream({ stream: reply.body, schema: ai.uiMessageChunkSchema });
for await (const chunk of chunks) {
  if (!chunk.success) throw chunk.error;
  kinds.push(chunk.value.type);
}

// Its message, as `useChat` puts it together; the message is then checked, too.
const transport = new ai.DefaultChatTransport({ api: `${address}/ui/chat` });
const stream = await transport.sendMessages({
  chatId: "c1", messages: [user], trigger: "submit-message", messageId: undefined, abortSignal: undefined,
});
const errors = [];
let message;
for await (const now of ai.readUIMessageStream({ stream, onError: (error) => errors.push(String(error)) })) {
  message = now;
}
const [checked] = await ai.validateUIMessages({ messages: [message] });
const resumed = await transport.reconnectToStream({ chatId: "c1" });
console.log(JSON.stringify({ kinds, errors, message: checked, resumed }));
