// A trace as people read it: the answer with its citations, and the searches on a time axis.
// Whatever a model or a passage wrote becomes a text node, never markup.

const KINDS = {
  exact: "Copied word for word",
  normalised: "The same words, but for case and punctuation",
  overlap: "Weak: this sentence shares most of its words",
};
const REASONS = {
  answered: "ended by itself",
  max_steps: "answered after the last search that is allowed",
  max_tokens: "ended because it wrote too much",
  malformed: "ended because the model wrote nothing that could be read",
  retriever_error: "ended because a search failed",
  engine_error: "ended because the model failed",
};
const PARTS = [["began", "searched", "think"], ["searched", "found", "search"], ["found", "done", "record"]];

/** An element with properties and children; a text child is a text. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && name !== "list") element[name] = value;
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A link to an address of the web; null for any other. */
export function link(address, text) {
  const url = URL.canParse(address ?? "") ? new URL(address) : null;
  if (!url || !["http:", "https:"].includes(url.protocol)) return null;
  return make("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, text);
}

/** A text with a span marked; offsets count characters, as Python has them. */
export function marked(text, [start, end]) {
  const signs = Array.from(text);
  const part = (from, to) => signs.slice(from, to).join("");
  return [part(0, start), make("mark", { id: "span" }, part(start, end)), part(end)];
}

export const seconds = (value) => (value === null || value === undefined ? "" : `${value.toFixed(value < 10 ? 2 : 1)} s`);
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const titled = (passage) => passage.title || passage.id;

/** How an answer came out, as a tag; null where nobody knows. */
export function outcome(name) {
  const sign = { right: "✓ right", wrong: "✗ wrong", none: "– no answer" }[name];
  return sign ? make("span", { className: `tag ${name}` }, sign) : null;
}

/** Traces of one question beside each other, each under its name. */
export function beside(traces, names, open) {
  const parts = traces.map((trace, place) => {
    const shown = new TraceView(open, { compact: true });
    shown.update(trace);
    return make("section", { "aria-label": names[place] }, make("p", { className: "kind" }, `${place + 1}: ${names[place]}`), shown.element);
  });
  return make("div", { className: "beside" }, parts);
}

export class TraceView {
  /** The view of one trace; `open` is called with a passage to show. */
  constructor(open, { compact = false } = {}) {
    this.open = open;
    this.drawn = [];
    this.heading = make("h2", { className: "asked", tabIndex: -1 });
    this.answer = make("div", { className: "answer" });
    this.steps = make("ol", { className: "steps" });
    this.axis = make("div", { className: "axis" });
    this.way = make(
      "section", { className: "way", hidden: true }, make("h3", {}, "How it was found"), this.axis, this.steps,
    );
    this.facts = make("p", { className: "hint end" });
    this.element = make("article", { className: compact ? "trace compact" : "trace" }, this.heading, this.answer, this.way, this.facts);
  }

  /** Show a trace, which may still grow. */
  update(trace) {
    this.trace = trace;
    this.heading.textContent = trace.question;
    this.passages = new Map(trace.steps.flatMap((step) => step.passages).map((one) => [one.id, one]));
    if (trace.ended) this.answer.replaceChildren(...this.outcome());
    else this.answer.replaceChildren(make("p", { className: "pending" }, trace.doing || "Thinking …"));
    this.way.hidden = !trace.steps.length;
    trace.steps.forEach((step, place) => this.step(step, place));
    this.rows(trace);
    this.facts.replaceChildren(...(trace.ended ? this.ending() : []));
    this.layout();
  }

  outcome() {
    const { trace } = this;
    const parts = [];
    if (trace.error) parts.push(make("p", { className: "failed", role: "alert" }, make("strong", {}, "It failed. "), trace.error));
    const [answers, facts] = ["answer", "fact"].map((kind) => trace.claims.filter((claim) => claim.kind === kind));
    for (const claim of answers) parts.push(make("p", { className: "said" }, this.claim(claim)));
    if (!answers.length && !trace.error) {
      parts.push(make("p", { className: "said none" }, "No answer was reached."));
      if (trace.malformed) parts.push(make("p", { className: "hint" }, `What went wrong: ${trace.malformed}`));
    }
    if (trace.accepted.length) parts.push(this.verdict());
    if (facts.length) {
      const items = facts.map((claim) => make("li", {}, this.claim(claim)));
      parts.push(make("h3", {}, "What it rests on"), make("ul", { className: "facts" }, items));
    } else if (answers.length) {
      parts.push(make("p", { className: "hint" }, "No evidence was recorded."));
    }
    if (trace.sources.length) {
      const items = trace.sources.map((source) => this.source(source));
      parts.push(make("h3", {}, "Sources"), make("ol", { className: "sources" }, items));
    }
    return parts;
  }

  verdict() {
    return make("p", { className: "verdict" }, outcome(this.trace.outcome), ` accepted: ${this.trace.accepted.join(" · ")}`);
  }

  claim(claim) {
    const cites = claim.citations.flatMap((cited) => [" ", this.cite(cited, claim)]);
    const tag = claim.supported ? null : make("span", { className: "tag unsupported" }, "unsupported");
    return [make("span", { className: claim.supported ? "" : "doubtful" }, claim.text), ...cites, tag && " ", tag];
  }

  cite(cited, claim) {
    const passage = this.passages.get(cited.passage_id);
    if (!passage) return null;
    const weak = cited.match === "overlap";
    const label = `${cited.source}${weak ? " weak" : ""}: source, ${titled(passage)}`;
    return make(
      "button",
      {
        type: "button", className: weak ? "cite weak" : "cite", "aria-label": label, "aria-haspopup": "dialog",
        onclick: () => this.open(passage, { ...cited, kind: KINDS[cited.match], claim: claim.text }),
      },
      String(cited.source), weak && make("span", {}, " weak"),
    );
  }

  source(source) {
    const passage = this.passages.get(source.id);
    const mark = this.trace.marks.find((one) => one.source === source.number);
    const open = () => this.open(passage, mark && { ...mark, kind: KINDS[mark.match] });
    return make(
      "li", { value: source.number },
      make("button", { type: "button", className: "plain", "aria-haspopup": "dialog", onclick: open }, titled(source)),
      make("q", {}, source.sentence),
    );
  }

  /** Draw a step, unless it stands there as it is. */
  step(step, place) {
    const [sign, known] = [JSON.stringify(step), this.drawn[place]];
    if (known?.sign === sign) return;
    const track = make("div", { className: "track", "aria-hidden": "true" });
    const item = make("li", {}, make("p", { className: "query" }, step.query, " ", gain(step)), track, this.found(step), recorded(step));
    if (known) known.item.replaceWith(item);
    else this.steps.append(item);
    this.drawn[place] = { sign, item, track, times: step.times, gain: step.gain };
  }

  found(step) {
    if (!step.passages.length) return make("p", { className: "hint" }, step.times && !step.times.found ? "searching …" : "nothing found");
    const chosen = step.selected_ids && new Set(step.selected_ids);
    const items = step.passages.map((passage) => {
      const used = step.evidence?.passage_ids.includes(passage.id);
      const notes = [used && "recorded from", passage.supporting && "gold", chosen && !chosen.has(passage.id) && "not selected"];
      const note = notes.filter(Boolean).join(", ");
      const button = { type: "button", className: used ? "passage used" : "passage", "aria-haspopup": "dialog", onclick: () => this.open(passage) };
      return make("li", {}, make("button", button, titled(passage), note && make("span", { className: "note" }, ` ${note}`)));
    });
    return make("ul", { className: "passages", "aria-label": count(items.length, "passage") }, items);
  }

  /** The row of the answer, and none too many of the steps. */
  rows(trace) {
    for (const { item } of this.drawn.splice(trace.steps.length)) item.remove();
    this.last?.item.remove();
    this.last = null;
    const from = trace.steps.at(-1)?.times?.done;
    if (from === undefined || !trace.ended) return;
    const track = make("div", { className: "track", "aria-hidden": "true" });
    const name = trace.answer ? "Answer" : "End";
    const item = make("li", { className: "last" }, make("p", { className: "query" }, name), track);
    this.steps.append(item);
    this.last = { item, track, times: { began: from, searched: trace.events.at(-1).at } };
  }

  /** Place the bars on the axis; `now` is the time so far of a question under way. */
  layout(now = 0) {
    const rows = [...this.drawn, this.last].filter((row) => row?.times);
    const length = Math.max(now, ...rows.flatMap(({ times }) => Object.values(times)));
    const timed = rows.length && length;
    if (!timed) return this.layoutGains();
    this.timed(true);
    const percent = (value) => `${(100 * value) / length}%`;
    for (const { track, times, gain: own } of rows) {
      const bars = PARTS.map(([from, to, kind]) => {
        if (times[from] === undefined) return null;
        const end = times[to] ?? (this.trace.ended || times.done !== undefined ? null : Math.max(now, times[from]));
        if (end === null) return null;
        return bar(kind, `min(${percent(times[from])}, calc(100% - 3px))`, percent(end - times[from]));
      });
      coloured(track, own);
      track.replaceChildren(...bars.filter(Boolean));
    }
    this.axis.replaceChildren(legend(), ticks("0 s", seconds(length / 2), seconds(length)));
  }

  /** Where no times are known: how likely the right answer was, from each search to the next. */
  layoutGains() {
    const rows = this.drawn.filter((row) => typeof row.gain === "number");
    this.timed(rows.length > 0);
    if (!rows.length) return;
    let sum = 0;
    const ends = rows.map((row) => [sum, (sum += row.gain)]);
    const [low, high] = [Math.min(...ends.flat()), Math.max(...ends.flat())];
    const percent = (value) => `${(100 * value) / (high - low || 1)}%`;
    rows.forEach((row, place) => {
      const [from, to] = ends[place];
      coloured(row.track, row.gain);
      row.track.replaceChildren(bar("search", `min(${percent(Math.min(from, to) - low)}, calc(100% - 3px))`, percent(Math.abs(to - from))));
    });
    const signed = (value) => `${value > 0 ? "+" : ""}${value.toFixed(1)}`;
    const said = make("p", { className: "legend" }, "Each bar: how much likelier the right answer became, in nats, from where the search before left it.");
    this.axis.replaceChildren(said, ticks(signed(low), signed(high)));
  }

  timed(is) {
    this.axis.hidden = !is;
    this.steps.classList.toggle("timed", is);
  }

  ending() {
    const { trace } = this;
    const parts = [count(trace.steps.length, "search").replace("searchs", "searches")];
    if (trace.seconds !== null) parts.push(seconds(trace.seconds));
    if (trace.tokens.prompt) parts.push(`${trace.tokens.prompt} tokens read, ${trace.tokens.output} written`);
    if (trace.stop_reason) parts.push(REASONS[trace.stop_reason] ?? trace.stop_reason);
    if (typeof trace.weight === "number") parts.push(`weight ${trace.weight.toFixed(3)}`);
    return [parts.join(" · ")];
  }
}

function bar(kind, left, width) {
  const made = make("span", { className: kind });
  [made.style.left, made.style.width] = [left, width];
  return made;
}

function coloured(track, gain) {
  if (gain === null || gain === undefined) return;
  track.classList.add(gain < 0 ? "loss" : "gain");
  track.style.setProperty("--strength", `${Math.round(25 + 75 * Math.min(1, Math.abs(gain) / 3))}%`);
}

function ticks(...texts) {
  return make("p", { className: "ticks", "aria-hidden": "true" }, texts.map((text) => make("span", {}, text)));
}

function legend() {
  const kinds = [["think", "think"], ["search", "search"], ["record", "read and record"]];
  return make("p", { className: "legend", "aria-hidden": "true" }, kinds.map(([kind, name]) => make("span", {}, make("i", { className: kind }), name)));
}

function gain(step) {
  if (step.gain === null || step.gain === undefined) return null;
  const sign = step.gain < 0 ? "▼" : "▲";
  const title = "How much more likely the right answer became, in nats";
  return make("span", { className: `tag ${step.gain < 0 ? "wrong" : "right"}`, title }, `${sign} gain ${step.gain.toFixed(2)}`);
}

function recorded(step) {
  if (step.evidence) return make("p", { className: "recorded" }, make("b", {}, "Recorded "), step.evidence.text);
  if (step.times && step.times.done === undefined) return null;
  return make("p", { className: "recorded nothing" }, "Nothing was recorded.");
}
