// AG-UI's own client asks a server, and checks each event and their order.
//
//   node tests/clients/ag_ui.mjs http://127.0.0.1:8000 "Who built the harbour?"
//
// `npm install --prefix DIR @ag-ui/client` brings it; EXSEARCH_NODE_MODULES names DIR/node_modules.
// Prints the events' types, the messages, the citations and what failed, as JSON.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const modules = process.env.EXSEARCH_NODE_MODULES ?? "node_modules";
const require = createRequire(pathToFileURL(`${modules}/`));
const { HttpAgent } = require("@ag-ui/client");

const [address, question] = process.argv.slice(2);
const agent = new HttpAgent({
  url: `${address}/ag-ui`,
  initialMessages: [{ id: "m1", role: "user", content: question }],
});
const told = { kinds: [], citations: [], errors: [] };
try {
  await agent.runAgent({}, {
    onEvent: ({ event }) => void told.kinds.push(event.type),
    onCustomEvent: ({ event }) => void told.citations.push(...event.value.citations),
    onRunErrorEvent: ({ event }) => void told.errors.push(event.message),
  });
} catch (error) {
  told.errors.push(String(error));
}
console.log(JSON.stringify({ ...told, messages: agent.messages }));
