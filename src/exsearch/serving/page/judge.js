// Judging: one thing after the other, each judgement kept before the next is shown.
// Nothing here knows who made what is shown. Whatever a model or a passage wrote becomes a text node.

import { make } from "./trace.js";

const ASKED = {
  query: ["Is the sub-query useful?", "Yes, if its answer would bring the question nearer, beyond what is known so far."],
  passage: ["Is the passage relevant?", "Yes, if it says a fact that answering the question takes."],
  evidence: ["Is the record supported?", "Yes, if the passages say it, in these words or in others."],
  answer: ["Is the answer right?", "Yes, if it answers the question as an accepted answer does, in whatever words."],
};
const VERDICTS = [["yes", "Yes", "y"], ["no", "No", "n"], ["unsure", "Can’t say", "u"]];

const at = (id) => document.getElementById(id);
let judge = "";
let items = [];
let place = 0;
let busy = true; // while a judgement is on its way

// --- who ------------------------------------------------------------------------------------

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("name").value.trim();
  if (name) location.hash = new URLSearchParams({ judge: name }); // a reload goes on
});

async function enter() {
  judge = about.judge || new URLSearchParams(location.hash.slice(1)).get("judge") || "";
  at("who").textContent = judge;
  at("enter").hidden = Boolean(judge);
  at("desk").hidden = at("end").hidden = true;
  if (!judge) return at("name").focus();
  await tried(async () => {
    items = (await asked(`/items?${new URLSearchParams({ judge })}`)).items;
    await open(next(0));
  });
}

// --- one item -------------------------------------------------------------------------------

/** The place of the first item from here on, then from the beginning, that is not judged yet. */
function next(from) {
  const unjudged = ({ verdict }) => verdict === null;
  const after = items.slice(from).findIndex(unjudged);
  return after < 0 ? items.findIndex(unjudged) : from + after;
}

async function open(wanted) {
  const over = wanted < 0;
  if (!over) draw(await asked(`/items/${items[wanted].id}`));
  place = over ? items.length : wanted;
  pace();
  at("desk").hidden = over;
  at("end").hidden = !over;
  at("end").replaceChildren(`All ${items.length} are judged, and kept. Thank you. `, back("Look at the last one"));
  if (over) return at("said").textContent = at("end").textContent;
  for (const button of at("buttons").children) button.ariaPressed = String(button.value === items[place].verdict);
  at("asked").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function draw(item) {
  const [asks, means] = ASKED[item.kind];
  const parts = [
    make("h2", { id: "asked", tabIndex: -1 }, asks),
    make("p", { className: "hint" }, means),
    ...named("Question", make("p", { className: "asked" }, item.question)),
  ];
  if (item.known?.length) parts.push(...named("Known so far", make("ul", { className: "facts" }, item.known.map((fact) => make("li", {}, fact)))));
  if (item.kind === "query") parts.push(...named("Sub-query", judged(item.query)));
  if (item.kind === "evidence") parts.push(...named("Record", judged(item.evidence)));
  if (item.kind === "answer") {
    parts.push(...named("Answer", judged(item.answer || "No answer was given.")));
    if (item.accepted.length) parts.push(...named("Accepted answers", make("p", {}, item.accepted.join(" · "))));
  }
  if (item.passages) {
    parts.push(make("h3", {}, item.passages.length === 1 ? "Passage" : "Passages"));
    parts.push(...item.passages.map((passage) => make("section", {}, passage.title && make("h4", {}, passage.title), make("p", { className: "text" }, passage.text))));
    if (!item.passages.length) parts.push(make("p", { className: "hint" }, "None was shown."));
  }
  at("item").replaceChildren(...parts);
}

const named = (name, element) => [make("h3", {}, name), element];
const judged = (text) => make("p", { className: "said" }, text);

function pace() {
  const count = items.filter(({ verdict }) => verdict !== null).length;
  Object.assign(at("done"), { max: Math.max(items.length, 1), value: count });
  at("count").textContent = `${count} of ${items.length}`;
  at("back").disabled = place === 0;
}

// --- judging --------------------------------------------------------------------------------

async function say(verdict) {
  if (busy || place >= items.length) return;
  await tried(async () => {
    const item = items[place];
    await asked("/judgements", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ judge, item: item.id, verdict }),
    });
    item.verdict = verdict;
    at("said").textContent = `Kept: ${VERDICTS.find(([own]) => own === verdict)[1]}.`;
    await open(next(place + 1));
  });
}

const goBack = () => place > 0 && !busy && tried(() => open(place - 1));
const back = (text) => make("button", { type: "button", onclick: goBack }, text);

at("buttons").append(...VERDICTS.map(([value, text, key]) =>
  make("button", { type: "button", value, ariaPressed: "false", onclick: () => say(value) }, `${text} `, make("kbd", {}, key.toUpperCase()))));
at("back").addEventListener("click", goBack);
at("keys").checked = localStorage.getItem("judging.keys") !== "off";
at("keys").addEventListener("change", shownKeys);

function shownKeys() {
  localStorage.setItem("judging.keys", at("keys").checked ? "on" : "off");
  document.body.classList.toggle("keyless", !at("keys").checked);
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox])");
  if (!at("keys").checked || typing || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  const verdict = VERDICTS.find(([, , own]) => own === key);
  if (verdict) say(verdict[0]);
  if (key === "b") goBack();
});

// --- the server -----------------------------------------------------------------------------

/** What the server says; an error has its words. */
async function asked(path, options) {
  const reply = await fetch(path, options).catch(() => null);
  if (!reply) throw new Error("The server can’t be reached; nothing was kept since. Start it again, then go on.");
  if (reply.ok) return reply.status === 204 ? null : reply.json();
  const told = await reply.json().catch(() => null);
  throw new Error(told?.error?.message ?? `The server said ${reply.status}.`);
}

/** Do one thing at a time, and show what went wrong. */
async function tried(action) {
  busy = true;
  try {
    await action();
    at("problem").hidden = true;
  } catch (error) {
    at("problem").textContent = error.message;
    at("problem").hidden = false;
  } finally {
    busy = false;
  }
}

shownKeys();
const about = await asked("/about");
addEventListener("hashchange", enter);
await enter();
