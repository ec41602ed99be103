// A passage in a drawer beside what cites it, with the cited span marked.

import { link, make, marked } from "./trace.js";

const kind = make("p", { id: "passage-kind", className: "kind" });
const title = make("h2", { id: "passage-title" });
const body = make("div", { id: "passage-body" });
const close = make("button", { id: "close", type: "button", onclick: () => drawer.close() }, "Close");
const drawer = make(
  "dialog",
  { id: "passage", "aria-labelledby": "passage-title", onclick: (event) => event.target === drawer && drawer.close() },
  make("div", { className: "bar" }, kind, close), title, body,
);
document.body.append(drawer);

/** Show a passage; with a citation its span is marked. */
export function openPassage(passage, cited) {
  kind.textContent = cited ? `Source ${cited.source} · ${cited.kind}` : "Passage";
  title.textContent = passage.title || passage.id;
  const text = make("p", { className: "text", tabIndex: 0 }, cited ? marked(passage.text, cited.span) : passage.text);
  const facts = [passage.id, typeof passage.score === "number" && `score ${passage.score.toFixed(2)}`].filter(Boolean).join(" · ");
  const own = String(passage.url).startsWith(`${location.origin}/`);
  const address = link(passage.url, own ? "Open by itself" : passage.url); // a foreign one in full
  body.replaceChildren(...[
    cited?.claim && make("p", { className: "claimed" }, make("b", {}, "Claimed "), cited.claim),
    text,
    make("p", { className: "hint" }, facts, address && " · ", address),
  ].filter(Boolean));
  drawer.showModal();
  document.getElementById("span")?.scrollIntoView({ block: "center" });
}
