// The form in which a reader checks a proof, and what it says. Nothing is sent anywhere.

import { fromUtf8, hex, printable } from "./bytes.js";
import { shownValue } from "./leaf-data.js";
import { Refused, bytesOf, parsePolicy, verify } from "./verify.js";
import { drawPath, tellPath } from "./picture.js";

const MAX_SHOWN = 100;
const VERDICTS = {
  proven: ["Proven", "Everything that this document claims follows from what the log has signed."],
  false: ["Not proven: false", "Something in this document is shown to be false."],
  unknown: ["Not proven: cannot be told", "This document cannot be checked with this key. That does not show that it is false."],
};

/** An element; children that are null are left out. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

const heading = (text) => element("h3", {}, text);
const hashOf = (bytes) => element("code", { class: "hash" }, hex(bytes));

function definitions(pairs) {
  return element("dl", { class: "facts" }, ...pairs.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}

function shownSteps(steps) {
  const items = steps.map(({ what, holds, detail }) => {
    const mark = element("span", { class: "mark" }, holds ? "holds" : "fails");
    const told = detail === "" ? null : element("span", { class: "detail" }, printable(detail));
    return element("li", { class: holds ? "holds" : "fails" }, mark, element("span", { class: "what" }, what), told);
  });
  return element("ol", { class: "steps" }, ...items);
}

function shownRow(leaf) {
  const facts = [["Table", printable(leaf.source)], ["Kind", leaf.kind]];
  if (!(leaf.columns instanceof Map)) return definitions([...facts, ["Columns", "withheld: a digest stands for them"]]);
  const of = (map) => [...map].map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, printable(name)), element("td", {}, shownValue(value))));
  const head = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Column"), element("th", { scope: "col" }, "Value as logged")));
  const table = element("table", {}, head, element("tbody", {}, ...of(leaf.columns)));
  const context = leaf.context.size > 0 ? [["Context", [...leaf.context].map(([name, value]) => `${name} ${shownValue(value)}`).join(", ")]] : [];
  return element("div", { class: "row" }, definitions([...facts, ...context]), table);
}

/** What is known of an entry, and no more than that. */
function shownContent({ data, leaf, label }) {
  if (leaf !== null) return shownRow(leaf);
  if (data !== null) return definitions([["Leaf data", shownValue(data)]]);
  const said = label === null ? "" : ` The document says, and does not prove: ${printable(`${label.source}, ${label.key.map((pair) => pair.join(" = ")).join(", ")}`)}.`;
  return element("p", {}, `The leaf data are withheld: only their hash is in the document.${said}`);
}

function shownEntry(entry, isProven, isFirst) {
  const sentences = tellPath(entry).map((sentence) => element("li", {}, sentence));
  const text = element("details", {}, element("summary", {}, "The picture in words"), element("ol", { class: "words" }, ...sentences));
  const caption = element("figcaption", {}, "In the middle: hashes that your browser has computed. At the sides: hashes from the document.");
  const content = isProven ? shownContent(entry) : element("p", {}, "What this entry says is not proven, and not shown.");
  const facts = definitions([["Leaf hash", hashOf(entry.leafHash)]]);
  const body = element("div", { class: "entry" }, content, facts, element("figure", {}, drawPath(entry), caption), text);
  const details = element("details", {}, element("summary", {}, `Entry ${entry.index} of ${printable(entry.origin)}`), body);
  details.open = isFirst;
  return details;
}

function provenFacts({ origin, size, root, key, cosigned, hub, old }) {
  const grew = old ? [["Grew from", `${old.size} entries, with their root ${hex(old.root)}`]] : [];
  const witnesses = cosigned.length > 0 ? [["Cosigned by", cosigned.map(({ witness }) => witness).join(", ")]] : [];
  const under = hub ? [["Contained in the hub", `${printable(hub.origin)}, ${hub.size} entries`]] : [];
  return definitions([["Log", printable(origin)], ["Entries", String(size)], ["Root", hashOf(root)], ["Key", element("code", { class: "hash" }, printable(`${key.name}+${key.id}`))], ...grew, ...witnesses, ...under]);
}

function notProven({ cosigned, hub, entries }, keyIsProposed) {
  const quorum = cosigned.length > 0 || hub?.cosigned.length > 0;
  const what = [
    keyIsProposed ? "That the key is the log's own: this server has proposed it. Compare it with the key that the log's owner has published elsewhere." : null,
    entries.length > 0 ? "That the row in the database is still as it was logged, and that no later entry is about the same row." : null,
    quorum ? null : "That the log shows everyone the same history: no witness has cosigned the checkpoint. Keep it, and compare it with a later one.",
  ];
  return element("ul", {}, ...what.filter((text) => text !== null).map((text) => element("li", {}, text)));
}

function shownReport({ verdict, steps, problem, proven, entries }, keyIsProposed) {
  const [word, meaning] = VERDICTS[verdict];
  const reason = problem === null ? "" : ` Reason: ${printable(problem.message)}.`;
  const isProven = proven !== null;
  const facts = isProven ? [heading("What is proven"), provenFacts(proven), heading("What is not proven"), notProven(proven, keyIsProposed)] : [];
  const shown = entries.slice(0, MAX_SHOWN).map((entry, i) => shownEntry(entry, isProven, i === 0));
  const more = entries.length > MAX_SHOWN ? [element("p", {}, `${entries.length - MAX_SHOWN} more entries were checked and are not shown.`)] : [];
  return [
    element("div", { class: `verdict ${verdict}`, "data-kind": problem?.kind ?? "" }, element("h2", {}, word), element("p", {}, `${meaning}${reason}`)),
    ...facts,
    heading("Steps"),
    shownSteps(steps),
    ...(shown.length > 0 ? [heading(isProven ? "Entries" : "How far the paths lead"), ...shown, ...more] : []),
  ];
}

/** The report on what is in the fields; what cannot be read is a report too. */
async function reportOn(pasted, policy) {
  try {
    return await verify(bytesOf(pasted), await parsePolicy(policy));
  } catch (problem) {
    if (!(problem instanceof Refused)) throw problem;
    return { verdict: "unknown", steps: [], problem, proven: null, entries: [] };
  }
}

/** A file's bytes as they could have been pasted. */
function pasteable(bytes) {
  try {
    return bytes[0] === 0x7b ? fromUtf8(bytes) : hex(bytes);
  } catch {
    return hex(bytes);
  }
}

function startPage() {
  const [fields, pasted, policy, file, report] = ["check", "document", "policy", "file", "report"].map((id) => document.getElementById(id));
  if (fields === null) return;
  const run = async () => {
    const proposed = fields.dataset.proposed ?? "";
    const keyIsProposed = proposed !== "" && policy.value.trim() === proposed;
    report.hidden = true;
    report.replaceChildren(...shownReport(await reportOn(pasted.value, policy.value), keyIsProposed));
    report.hidden = false;
  };
  fields.addEventListener("submit", async (event) => {
    event.preventDefault();
    await run();
    report.focus();
  });
  file.addEventListener("change", async () => {
    if (file.files.length === 0) return;
    pasted.value = pasteable(new Uint8Array(await file.files[0].arrayBuffer()));
  });
  for (const button of fields.querySelectorAll("button")) button.disabled = false;
  if (pasted.value !== "" && policy.value !== "") run();
}

startPage();
