// The page: asks, follows what happens, and keeps the list of traces.

import { openPassage } from "./passage.js";
import { TraceView, beside, make, outcome } from "./trace.js";

const FORM = 1;
const LISTED = 500; // more in a list help nobody
const at = (id) => document.getElementById(id);
const view = at("view");
let rows = [];
let columns = [];
let running = null; // stops the question under way

// --- asking ---------------------------------------------------------------------------------

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else ask(at("question").value.trim());
});

at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!running) at("ask").requestSubmit();
  }
});

async function ask(question) {
  if (!question) return;
  const shown = new TraceView(openPassage);
  const trace = { question, steps: [], ended: false, seconds: null };
  const began = performance.now();
  const passed = () => (performance.now() - began) / 1000;
  running = new AbortController();
  at("send").textContent = "Stop";
  at("ask").className = "running";
  at("question").value = "";
  history.replaceState(null, "", "#");
  document.title = `${question} · exsearch`;
  say("Thinking …");
  shown.update(trace);
  show(shown.element);
  const clock = setInterval(() => shown.layout(passed()), 250);
  try {
    const reply = await fetch("/ask", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ question }),
      signal: running.signal,
    });
    if (!reply.ok) throw new Error(await problem(reply));
    let last = null;
    for await (const event of events(reply.body)) {
      if (event.kind === "trace") last = event.trace;
      else if (grow(trace, event)) shown.update(trace), shown.layout(passed());
    }
    if (!last) throw new Error("The server ended before the answer.");
    clearInterval(clock);
    finish(shown, last);
  } catch (error) {
    clearInterval(clock);
    const stopped = error.name === "AbortError";
    const said = stopped ? "Stopped." : error.message;
    say(said);
    at("question").value ||= question;
    shown.element.replaceChildren(shown.heading, make("p", { className: stopped ? "hint" : "failed" }, said));
  } finally {
    running = null;
    at("send").textContent = "Ask";
    at("ask").className = "";
  }
  await refresh();
}

/** Take an event into a trace under way; false where nothing changed. */
function grow(trace, event) {
  const step = trace.steps.at(-1);
  if (event.kind === "begun") {
    const open = step && step.times.done === undefined;
    if (!open) trace.began_at ??= event.at;
    trace.doing = { record: "Reading …", select: "Choosing …", answer: "Answering …" }[event.action] ?? "Thinking …";
  } else if (event.kind === "search") {
    const times = { began: trace.began_at ?? event.at, searched: event.at };
    trace.began_at = undefined;
    trace.steps.push({ query: event.text, passages: [], selected_ids: null, evidence: null, times, gain: null });
    say(`Search ${trace.steps.length}: ${event.text}`);
    trace.doing = "Searching …";
  } else if (event.kind === "passages" && step) {
    step.passages = event.passages;
    step.times.found = event.at;
    trace.doing = "Reading …";
  } else if (event.kind === "evidence" && step) {
    step.evidence = event.evidence;
    step.times.done = event.at;
    say(event.evidence ? `Recorded: ${event.evidence.text}` : "Nothing was recorded.");
    trace.doing = "Thinking …";
  } else return false;
  return true;
}

function finish(shown, trace) {
  shown.update(trace);
  shown.element.append(tools(trace, true));
  const sources = trace.sources.length === 1 ? "1 source" : `${trace.sources.length} sources`;
  say(trace.error ? `It failed: ${trace.error}` : trace.answer ? `Answer: ${trace.answer}, with ${sources}.` : "No answer was reached.");
  if (trace.stop_reason && shown.element.isConnected) history.replaceState(null, "", `#trace=${encodeURIComponent(trace.id)}`);
}

/** The events of a stream, one value of JSON each. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield JSON.parse(lines.map((line) => line.slice(5)).join("\n"));
    }
  }
}

async function problem(reply) {
  const told = await reply.json().catch(() => null);
  return told?.error?.message ?? `The server said ${reply.status}.`;
}

const say = (text) => { at("said").textContent = text; };
const show = (...parts) => view.replaceChildren(...parts);

// --- traces ---------------------------------------------------------------------------------

async function refresh() {
  const reply = await fetch("/traces");
  const told = reply.ok ? await reply.json() : { traces: [] };
  rows = told.traces;
  list();
  if (!reply.ok) at("count").textContent = await problem(reply);
}

function list() {
  const [words, outcome] = [at("filter").value.toLowerCase(), at("outcome").value];
  const fits = (row) =>
    (!words || `${row.question} ${row.answer}`.toLowerCase().includes(words)) &&
    (!outcome || (outcome === "differ" ? row.outcome !== row.other?.outcome : row.outcome === outcome));
  const found = rows.filter(fits);
  const current = location.hash;
  at("filters").hidden = rows.length < 6 && !columns.length;
  at("count").textContent = rows.length ? `${found.length} of ${rows.length}${found.length > LISTED ? `; the first ${LISTED}:` : ""}` : "None yet.";
  at("count").hidden = rows.length > 0 && at("filters").hidden;
  at("list").replaceChildren(...found.slice(0, LISTED).map((row) => {
    const href = `#trace=${encodeURIComponent(row.id)}`;
    return make("li", {}, make("a", { href, "aria-current": href === current && "page" },
      make("span", { className: "name" }, row.question),
      columns.length ? [verdict(row, 1), row.other && verdict(row.other, 2)] : make("span", { className: "hint" }, row.error ? "failed" : row.answer || "no answer"),
    ));
  }));
}

function verdict(row, number) {
  return make("span", { className: "hint" }, columns.length > 1 && `${number}: `, outcome(row.outcome), ` ${row.answer}`);
}

at("filter").addEventListener("input", list);
at("outcome").addEventListener("change", list);

/** Show the trace that the address names, or the beginning; one under way is looked at again. */
async function follow(again = false) {
  const id = new URLSearchParams(location.hash.slice(1)).get("trace");
  list();
  if (id === null) return welcome();
  const reply = await fetch(`/traces/${encodeURIComponent(id)}`);
  if (!reply.ok) {
    say("");
    return show(make("p", { className: "failed", role: "alert" }, await problem(reply)));
  }
  const trace = await reply.json();
  if (trace.other) return sideBySide(trace, trace.other);
  open(trace, true, again);
  if (!trace.ended) setTimeout(() => location.hash === `#trace=${encodeURIComponent(id)}` && follow(true), 1000);
}

function open(trace, linked, again = false) {
  const shown = new TraceView(openPassage);
  shown.update(trace);
  shown.element.append(tools(trace, linked));
  show(shown.element);
  document.title = `${trace.question} · exsearch`;
  say("");
  if (!again) shown.heading.focus();
}

function sideBySide(...traces) {
  show(beside(traces, columns, openPassage));
  document.title = `${traces[0].question} · exsearch`;
  view.querySelector("h2").focus();
}

function welcome() {
  document.title = "exsearch";
  say("");
  const asks = !at("ask").hidden;
  show(make("p", { className: "welcome" }, asks
    ? "Ask something that the documents here may answer. Each search is shown as it happens, and each claim of the answer names the passage that says it."
    : "Choose a question to see how it was answered."));
}

function tools(trace, linked) {
  const save = make("button", { type: "button", onclick: () => download(trace) }, "Save as a file");
  const parts = [save];
  if (linked && trace.stop_reason) parts.push(make("a", { className: "button", href: `#trace=${encodeURIComponent(trace.id)}` }, "Link to this question"));
  return make("p", { className: "tools" }, parts);
}

function download(trace) {
  const href = URL.createObjectURL(new Blob([JSON.stringify(trace, null, 1)], { type: "application/json" }));
  make("a", { href, download: `trace-${trace.id.replace(/[^\w-]+/g, "-")}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

at("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    const trace = JSON.parse(await file.text());
    if (trace?.form !== FORM) throw new Error("it is no trace of this version");
    history.replaceState(null, "", "#");
    open(trace, false);
    list();
  } catch (error) {
    show(make("p", { className: "failed", role: "alert" }, `${file.name} can’t be shown: ${error.message}`));
  }
});

// --- beginning ------------------------------------------------------------------------------

const about = await (await fetch("/about")).json();
columns = about.columns;
at("about").textContent = about.name;
at("ask").hidden = !about.asks;
at("outcome").querySelector("[value=differ]").hidden = columns.length < 2;
addEventListener("hashchange", () => follow());
await refresh();
await follow();
if (about.asks && location.hash.length < 2) at("question").focus();
