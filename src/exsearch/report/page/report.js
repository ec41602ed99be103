// The report: tables of figures, and behind each cell its questions and their timelines.
// What is packed is opened when it is asked for. Texts become text nodes, never markup.

import { openPassage } from "./passage.js";
import { TraceView, beside, make, outcome } from "./trace.js";

const FORM = 1;
const SHOWN = 100; // questions that a list shows at a time
const CAUSES = {
  retrieval: "A fact was not found, and no query finds it.",
  query: "A fact was not found, and a better query finds it.",
  stop: "It stopped before it searched for a fact that can be found.",
  untold: "A fact was not found, and nobody looked whether another query finds it.",
  "not shown": "A fact was found, but beyond the words that the prompt shows.",
  record: "A fact was shown, and stands in no record.",
  "reading of the pool": "The answer was recorded, and another one given.",
  format: "No answer was reached.",
  metric: "Right in other words.",
  unknown: "The question names neither a support nor an answer to look for.",
};
const REACHES = {
  sample: "another sample’s query finds it", "sub-question": "its sub-question finds it",
  bound: "only a query that names what is looked for finds it", nothing: "no query finds it", unknown: "not looked for",
};
const GROUPS = { "": "all questions", neither: "none that can be guessed", "in question": "answer in the question", "yes/no": "yes or no" };
const at = (id) => document.getElementById(id);
const report = JSON.parse(at("values").textContent);
const metrics = Object.keys(report.metrics);
const chosen = { metric: report.metric, group: "neither" };
if (!report.main.rows.some((row) => row.all.by.neither)) chosen.group = "";

// --- what is packed ---------------------------------------------------------------------------

const opened = new Map();

/** The value of a piece, unpacked once. */
function piece(name) {
  if (!opened.has(name)) opened.set(name, unpacked(at(name).textContent));
  return opened.get(name);
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** The questions of some sheets with what was answered, as flat rows. */
async function listed(numbers) {
  const [texts, ...sheets] = await Promise.all([piece("questions"), ...numbers.map((number) => piece(`sheet-${number}`))]);
  return sheets.flatMap((sheet, place) => sheet.question.map((question, n) => ({
    sheet: numbers[place], place: n, question, id: sheet.id[n] ?? texts[question][0], text: texts[question][1] || texts[question][0],
    answers: texts[question][2], prediction: sheet.prediction[n], group: sheet.group[n], cause: sheet.cause[n] ?? null,
    values: Object.fromEntries(metrics.map((name) => [name, sheet.values[name][n]])),
    outcome: !sheet.prediction[n] ? "none" : sheet.values.em[n] === 1 ? "right" : "wrong",
    trace: sheet.traces[0] + n < sheet.traces[1] ? sheet.traces[0] + n : null,
  })));
}

/** A trajectory with its passages put back. */
async function traced(row) {
  if (row.trace === null) return null;
  const trace = (await piece(`traces-${Math.floor(row.trace / 200)}`))[row.trace % 200];
  const numbers = trace.steps.flatMap((step) => step.passages.map(([number]) => number));
  const pieces = [...new Set(numbers.map((number) => Math.floor(number / 500)))];
  const stored = new Map(await Promise.all(pieces.map(async (number) => [number, await piece(`passages-${number}`)])));
  const passage = ([number, score, supporting]) => {
    const [id, title, text] = stored.get(Math.floor(number / 500))[number % 500];
    return { id, title, text, score, supporting: Boolean(supporting), url: null };
  };
  return { ...trace, steps: trace.steps.map((step) => ({ ...step, passages: step.passages.map(passage) })) };
}

// --- tables -----------------------------------------------------------------------------------

const percent = (value) => (100 * value).toFixed(1);
const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const plural = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

/** A figure with its interval; as a link where questions stand behind it. */
function figured([value, low, high], { share = true, href = null, label = "" } = {}) {
  const told = share ? percent : (each) => each.toFixed(2);
  const shown = [make("b", {}, told(value)), " ", make("span", { className: "interval" }, `[${told(low)}, ${told(high)}]`)];
  return href ? make("a", { href, "aria-label": `${told(value)} [${told(low)}, ${told(high)}], ${label}: open its questions` }, shown) : shown;
}

/** A table that scrolls by itself where it is too wide; a cell is a text, an element or a list. */
function table(caption, heads, rows) {
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, first), cells.map((cell) => make("td", {}, cell ?? "–"))));
  const made = make("table", { "aria-label": caption }, make("thead", {}, head), make("tbody", {}, body));
  return make("div", { className: "card" }, make("p", { className: "caption" }, caption), wide(caption, made));
}

/** What scrolls by itself, also by keyboard, where it is too wide. */
function wide(name, ...parts) {
  return make("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": name }, parts);
}

function questionsOf(sheets, more = {}) {
  return `#${new URLSearchParams({ sheets: sheets.join(","), ...more })}`;
}

function results() {
  const { parts, rows, guess } = report.main;
  const several = parts.length > 1 || (parts[0] ?? "") !== "";
  const { metric, group } = chosen;
  const cell = (own, label) => {
    const found = own?.by[group];
    const figure = found?.[metric];
    if (!figure) return null;
    const href = own.sheets && questionsOf(own.sheets, group ? { group } : {});
    return figured(figure, { href, label });
  };
  const counts = (name) => Math.max(0, ...rows.map((row) => (name === null ? row.all : row.cells[name])?.by[group]?.n ?? 0));
  const columns = several ? parts : [];
  const heads = ["row", ...columns.map((name) => `${name} (${counts(name)})`), `together (${counts(null)})`, "tokens a question", "searches"];
  const lines = rows.map((row) => [
    row.name, ...columns.map((name) => cell(row.cells[name], `${row.name}, ${name}`)), cell(row.all, row.name), number(row.tokens, 0), number(row.searches),
  ]);
  const rule = metric === "em" ? [["guessing, by a rule", ...columns.map((name) => cell(guess.cells[name])), cell(guess.all), "0", "0"]] : [];
  return table(`${report.metrics[metric]} in percent, with 95 % intervals: ${GROUPS[group] ?? group}`, heads, [...rule, ...lines]);
}

/** What is chosen for the tables, and the table below, made anew at each choice. */
function resultsSection() {
  const place = make("div", {}, results());
  const choose = (name, id, label, options) => {
    const items = Object.entries(options).map(([value, text]) => make("option", { value, selected: value === chosen[name] }, text));
    const select = make("select", { id, onchange: () => { chosen[name] = select.value; place.replaceChildren(results()); } }, items);
    return make("p", {}, make("label", { htmlFor: id }, label), " ", select);
  };
  const groups = [...new Set(report.main.rows.flatMap((row) => Object.keys(row.all.by)))];
  const known = metrics.filter((name) => report.main.rows.some((row) => row.all.by[""][name]));
  const pick = (names, texts) => Object.fromEntries(names.map((name) => [name, texts[name] ?? name]));
  return section("Results", "Each figure opens its questions, and each question its way to the answer.",
    make("div", { className: "choices" }, choose("metric", "metric", "Metric", pick(known, report.metrics)), choose("group", "group", "Questions", pick(groups, GROUPS))),
    place);
}

function section(title, says, ...parts) {
  const id = title.toLowerCase().replace(/[^a-z]+/g, "-");
  return make("section", { "aria-labelledby": id, className: "block" }, make("h2", { id }, title), says && make("p", { className: "hint" }, says), parts);
}

function figures(...names) {
  return report.drawn.filter((one) => names.includes(one.name)).map((one) => {
    const picture = make("div", { className: "picture", role: "img", "aria-label": `${one.title}; the values stand below` });
    picture.append(at(`figure-${one.name}`).content.cloneNode(true));
    const [heads, ...rows] = one.values;
    return make("figure", {}, make("figcaption", {}, one.title), wide(`${one.title}: picture`, picture), make("details", {}, make("summary", {}, "Values"), table(one.title, heads, rows)));
  });
}

function comparedSection() {
  const parts = Object.entries(report.compared).filter(([, lines]) => lines.length).map(([group, lines]) =>
    table(`against ${report.base}: ${GROUPS[group] ?? group}`, ["row", "difference %", "p", "p, Holm", "better", "worse", "questions"],
      lines.map((one) => {
        const href = `#${new URLSearchParams({ flips: `${report.base}\n${one.name}` })}`;
        return [make("a", { href }, one.name), figured([one.difference, ...one.ci95]), number(one.p, 4), number(one.p_holm, 4), one.better, one.worse, one.n].map((each) => (typeof each === "number" ? String(each) : each));
      })));
  if (!parts.length) return null;
  return section("Comparisons", `${report.metrics[report.metric]}, question by question. A name opens the questions that flipped.`, figures("differences"), parts, flipsForm());
}

function flipsForm() {
  const names = report.main.rows.map((row) => row.name);
  const select = (id, label, value) => make("p", {}, make("label", { htmlFor: id }, label), " ", make("select", { id }, names.map((name) => make("option", { value: name, selected: name === value }, name))));
  const form = make("form", { className: "choices", onsubmit: (event) => {
    event.preventDefault();
    location.hash = new URLSearchParams({ flips: `${at("first").value}\n${at("second").value}` });
  } }, select("first", "Flips of", names[0]), select("second", "against", names[1]), make("button", {}, "Show"));
  return names.length > 1 ? form : null;
}

function trainingSection() {
  if (!report.training.length) return null;
  const { metric } = chosen;
  const parts = report.training.map((run) => {
    const lines = run.stages.map((one) => {
      const dev = one.dev?.[""];
      const sampled = one.sampled.em === null || one.sampled.em === undefined ? null : percent(one.sampled.em);
      return [
        one.stage === run.best ? `${one.stage} (best)` : one.stage,
        dev?.[metric] ? figured(dev[metric], { href: one.dev_sheet === null ? null : questionsOf([one.dev_sheet]), label: `${run.name}, ${one.stage}, dev` }) : null,
        dev?.f1 ? percent(dev.f1[0]) : null,
        sampled && one.sampled_sheet !== null ? make("a", { href: questionsOf([one.sampled_sheet]), "aria-label": `${sampled}, ${run.name}, ${one.stage}, samples: open them` }, sampled) : sampled,
        one.sampled.objective === undefined || one.sampled.objective === null ? null : `${number(one.sampled.objective)} ± ${number(one.objective_error)}`,
        number(one.effective_samples), one.questions ? `${one.hopeless ?? "–"} of ${one.questions}` : null, number(one.loss),
      ];
    });
    const heads = ["stage", `dev ${report.metrics[metric]} %`, "dev F1 %", "samples, EM %", "objective, nats", "effective samples", "hopeless", "train loss"];
    const alarms = run.alarms.map((one) => make("p", { className: "failed" }, make("b", {}, `${one.name}, ${one.stage}: `), `${one.says}. Try: ${one.remedy}.`));
    return [table(`${run.name}${run.finished ? "" : ", not finished"}`, heads, lines), alarms];
  });
  return section("Training", "By stage: dev answers, what was sampled, and what it taught.", figures("curves", "objective"), parts.flat());
}

function diagnosisSection() {
  const blocks = report.diagnosis.filter((one) => one.tables.length).map((one, block) => {
    const tables = one.tables.map((each, place) => {
      const lines = each.lines.map((line, n) => [line.label, ...line.cells.map((cell, column) => cell && rated(cell, line, one.heads[column], [block, place, n, column]))]);
      const wrong = each.wrong ? [["wrong answers", ...each.wrong.map((count) => (count === null ? null : String(count)))]] : [];
      const title = block ? `${each.title}, by stage` : each.title;
      return make("details", { open: !block && !place }, make("summary", {}, title), table(title, ["rate", ...one.heads.map((head) => `${head.name}${each.lines.some((line) => line.share) ? " %" : ""}`)], [...wrong, ...lines]));
    });
    return [block ? make("h3", {}, "Stages of training") : null, tables];
  });
  if (!blocks.length) return null;
  const searched = report.searched ? plural(report.searched, "search").replace("searchs", "searches") : "No search";
  return section("Diagnosis", `Where answers were lost, by words alone. ${searched} made for it. A figure opens questions that show it.`, figures("budget"), blocks.flat(2));
}

function rated(cell, line, head, place) {
  const more = line.cause ? { cause: line.cause, ...(line.group === "all" ? {} : { group: line.group }) } : { rate: place.join(".") };
  const href = line.cause ? cell.figure[0] > 0 && questionsOf(head.sheets, more) : cell.examples.length > 0 && questionsOf(head.sheets, more);
  return [figured(cell.figure, { share: line.share, href: href || null, label: `${head.name}, ${line.label}` }), make("span", { className: "interval" }, ` (${cell.n})`)];
}

function corpusSection() {
  if (!report.audit.length) return null;
  const heads = ["questions", "n", "answer in a passage %", "in the first 5 of one search %", "support missing %"];
  const lines = report.audit.map((one) => [`${one.part} ${GROUPS[one.group] ?? one.group}`.trim(), String(one.n), ...["in_corpus", "in_first_search", "support_missing"].map((name) => one[name] && figured(one[name]))]);
  return section("Corpus", "What the passages let anybody answer, before any model is asked.", table("the corpus", heads, lines));
}

// --- questions --------------------------------------------------------------------------------

let browser = null; // the list that is open, so that it stays while its questions are looked at

class Browser {
  /** A list of questions to look through; each has one trace, or two to compare. */
  constructor(key, title, rows, { cause = "", group = "", names = null } = {}) {
    Object.assign(this, { key, rows, names, shown: SHOWN, found: rows });
    const causes = [...new Set(rows.map((row) => row.cause).filter(Boolean))];
    const kinds = names ? { first: `only ${names[0]} is right`, second: `only ${names[1]} is right`, "": "all that differ" } : { "": "all", right: "right", wrong: "wrong", none: "no answer" };
    const options = (all) => Object.entries(all).map(([value, text]) => make("option", { value }, text));
    const again = () => { this.shown = SHOWN; this.list(); };
    this.words = make("input", { id: "find", type: "search", autocomplete: "off", oninput: again });
    this.kind = make("select", { id: "kind", onchange: again }, options(kinds));
    this.kind.value = "";
    this.cause = make("select", { id: "cause", onchange: again }, options({ "": "any", ...Object.fromEntries(causes.map((name) => [name, name])) }));
    this.cause.value = causes.includes(cause) ? cause : "";
    const groups = [...new Set(rows.map((row) => row.group))];
    this.group = make("select", { id: "of", onchange: again }, options({ "": GROUPS[""], ...Object.fromEntries(groups.map((name) => [name, GROUPS[name] ?? name])) }));
    this.group.value = groups.includes(group) ? group : "";
    this.count = make("p", { className: "hint", role: "status" });
    this.items = make("ol", { className: "questions" });
    this.more = make("button", { type: "button", onclick: () => { this.shown += SHOWN; this.list(); } }, "Show more");
    const field = (input, label) => make("p", {}, make("label", { htmlFor: input.id }, label), input);
    this.heading = make("h2", { tabIndex: -1 }, title);
    this.side = make("nav", { className: "browse", "aria-label": "Questions" },
      make("div", { id: "filters" }, field(this.words, "Find"), field(this.kind, "Show"), groups.length > 1 && field(this.group, "Kind"), causes.length > 0 && field(this.cause, "Lost by")),
      this.count, this.items, this.more);
    this.body = make("div", { className: "opened" });
    this.element = make("div", {}, make("p", {}, make("a", { href: "#", className: "button" }, "← The report")), this.heading, make("div", { className: "browser" }, this.side, this.body));
    this.list();
  }

  list() {
    const [words, kind, cause, group] = [this.words.value.toLowerCase(), this.kind.value, this.cause.value, this.group.value];
    this.found = this.rows.filter((row) =>
      (!kind || (row.other ? (row.outcome === "right") === (kind === "first") : row.outcome === kind)) && (!cause || row.cause === cause) &&
      (!group || row.group === group) && (!words || `${row.text} ${row.prediction} ${row.id}`.toLowerCase().includes(words)));
    this.count.textContent = `${this.found.length.toLocaleString("en")} of ${plural(this.rows.length, "question")}`;
    this.items.replaceChildren(...this.found.slice(0, this.shown).map((row) => this.item(row)));
    this.more.hidden = this.found.length <= this.shown;
  }

  item(row) {
    const href = this.href(row);
    const lost = !this.names && row.cause && ` · lost by ${row.cause}`;
    const said = (one, place) => make("span", { className: "hint" }, this.names && `${place}: `, outcome(one.outcome), ` ${one.prediction}`, lost);
    return make("li", {}, make("a", { href, "aria-current": href === location.hash && "page" }, make("span", { className: "name" }, row.text),
      said(row, 1), row.other && said(row.other, 2)));
  }

  href(row) {
    return `${this.key}&${new URLSearchParams({ at: `${row.sheet}.${row.place}` })}`;
  }

  /** Show the question that the address names, or none. */
  async show(name) {
    const row = this.rows.find((one) => `${one.sheet}.${one.place}` === name);
    this.element.classList.toggle("one", Boolean(row));
    for (const each of this.items.querySelectorAll("a")) each.toggleAttribute("aria-current", each.getAttribute("href") === location.hash);
    if (!row) return this.body.replaceChildren(make("p", { className: "welcome" }, "Choose a question to see how it was answered."));
    const traces = await Promise.all([row, row.other].filter(Boolean).map(traced));
    const place = this.found.indexOf(row);
    const step = (to, text) => this.found[to] && make("a", { className: "button", href: this.href(this.found[to]) }, text);
    const way = make("p", { className: "tools" }, make("a", { className: "button to-list", href: this.key }, "To the list"), place >= 0 && [step(place - 1, "Previous"), step(place + 1, "Next")]);
    const view = traces.includes(null) ? unkept(row) : row.other ? beside(traces, this.names, openPassage) : timeline(traces[0]);
    this.body.replaceChildren(way, view);
    document.title = `${row.text} · exsearch report`;
    view.querySelector("h2").focus();
  }
}

function unkept(row) {
  return make("article", { className: "trace" }, make("h2", { className: "asked", tabIndex: -1 }, row.text), make("p", { className: "said" }, row.prediction || "No answer was reached."),
    make("p", { className: "verdict" }, outcome(row.outcome), row.answers.length ? ` accepted: ${row.answers.join(" · ")}` : ""),
    make("p", { className: "hint" }, "Its trajectory is not in this report."));
}

function timeline(trace) {
  const view = new TraceView(openPassage);
  view.update(trace);
  if (trace.cause || trace.needs.length) view.way.before(wentWrong(trace));
  return view.element;
}

/** What an answer rests on, and the first link of each fact that broke. */
function wentWrong(trace) {
  const link = (holds, name) => make("span", { className: `tag ${holds ? "right" : "wrong"}` }, `${holds ? "✓" : "✗"} ${name}`);
  const items = trace.needs.map((need) => make("li", {}, make("span", {}, need.query || [need.says && `a passage that says “${need.says}”`, need.support].filter(Boolean).join(": ")), " ",
    need.links.map((holds, place) => [link(holds, ["found", "shown", "recorded"][place]), " "]), need.reach && make("span", { className: "note" }, REACHES[need.reach])));
  return make("section", { className: "lost" }, make("h3", {}, trace.cause ? "Where it went wrong" : "What it needed"),
    trace.cause && make("p", {}, make("span", { className: "tag wrong" }, trace.cause), ` ${CAUSES[trace.cause]}`), make("ul", { className: "needs" }, items));
}

async function flips(first, second) {
  const sheets = (name) => report.main.rows.find((row) => row.name === name)?.all.sheets ?? [];
  const [ours, theirs] = await Promise.all([first, second].map((name) => listed(sheets(name))));
  const others = new Map(theirs.map((row) => [row.question, row]));
  const both = ours.map((row) => ({ ...row, other: others.get(row.question) })).filter((row) => row.other);
  return both.filter((row) => (row.outcome === "right") !== (row.other.outcome === "right"));
}

/** The questions that an address names. */
async function browsed(key, asked) {
  if (asked.has("flips")) {
    const names = asked.get("flips").split("\n");
    return new Browser(key, `${names[0]} against ${names[1]}: questions that one of them gets right`, await flips(...names), { names });
  }
  const numbers = asked.get("sheets").split(",").map(Number).filter((each) => report.sheets[each]);
  const [{ row, part }] = numbers.map((each) => report.sheets[each]);
  let rows = await listed(numbers);
  let title = numbers.length > 1 || !part ? row : `${row}, ${part}`;
  if (asked.has("rate")) {
    const [block, place, line, column] = asked.get("rate").split(".").map(Number);
    const shown = report.diagnosis.filter((one) => one.tables.length)[block].tables[place].lines[line];
    const ids = new Set(shown.cells[column].examples);
    rows = rows.filter((one) => ids.has(one.id));
    title += `: examples of “${shown.label}”`;
  }
  return new Browser(key, title, rows, { cause: asked.get("cause") ?? "", group: asked.get("group") ?? "" });
}

async function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const name = asked.get("at");
  asked.delete("at");
  const key = `#${asked}`;
  if (!asked.size) {
    browser = null;
    document.title = "exsearch report";
    return at("view").replaceChildren(...[() => report.main.rows.length > 0 && resultsSection(), comparedSection, () => report.drawn.some((one) => one.name === "cost") && section("Cost and quality", "", figures("cost")), trainingSection, diagnosisSection, corpusSection].map((made) => made()).filter(Boolean));
  }
  try {
    const fresh = browser?.key !== key;
    if (fresh) browser = await browsed(key, asked);
    at("view").replaceChildren(browser.element);
    await browser.show(name);
    if (!name) browser.heading.focus();
  } catch (error) {
    at("view").replaceChildren(make("p", { className: "failed", role: "alert" }, `This can’t be shown: ${error.message}`));
  }
}

// --- a run that is being trained --------------------------------------------------------------

/** Look for a newer page: at the tables it is shown at once, at a question it is offered. */
async function lookForNewer() {
  const told = at("live");
  try {
    const { version, going, trouble } = await (await fetch("version", { cache: "no-store" })).json();
    if (version !== report.live && location.hash.length < 2) return location.reload();
    const newer = make("button", { type: "button", onclick: () => location.reload() }, "Show newer figures");
    const text = trouble || (going ? "This run is being trained; the page follows it." : "Nobody trains this run now.");
    if (version !== report.live) told.replaceChildren(newer);
    else if (told.textContent !== text) told.replaceChildren(text);
  } catch {
    told.replaceChildren("The server does not answer; this page shows what it last had.");
  }
  setTimeout(lookForNewer, 5000);
}

at("live").hidden = !report.live;
if (report.form === FORM) {
  const { rows } = report.main;
  at("about").textContent = [rows.length && plural(rows.length, "row"), report.training.length && plural(report.training.length, "run"), plural(report.traces, "trajectory").replace("trajectorys", "trajectories")].filter(Boolean).join(" · ");
  addEventListener("hashchange", follow);
  await follow();
  if (report.live) lookForNewer();
}
