// Checks proof bundles and consistency proofs of merkle_log: docs/proof-format.md says what each step means.
//
// For browsers and Node, without dependencies: hashes and signatures are WebCrypto's. It shares no code with the rest
// of the project, and asks nobody: `verify(document, policy)` gets bytes, and says what they prove.

import { bytesOf64, concat, decimal, equal, fromUtf8, hex, isBytes, isText, number, unbase64, unhex, utf8 } from "./bytes.js";
import { decodeCbor, decodeLeaf, isInteger } from "./leaf-data.js";

/** Why a document proves nothing. Kinds are those of the vectors in docs/proof-format-vectors.json. */
export class Refused extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }

  /** Whether the document is shown to be false, rather than unreadable or signed by someone unknown. */
  get isFalsehood() {
    return ["BadSignature", "Inclusion", "Inclusions", "Consistency", "Fork", "Contradiction"].includes(this.kind);
  }
}

const BUNDLE = "merkle_log/proof-bundle@v1";
const BUNDLE_AT_ONCE = "merkle_log/proof-bundle@v2";
const CONSISTENCY = "merkle_log/consistency@v1";
const MAX_SIZE = 2n ** 62n - 1n;
const MAX_LEVELS = 8;
const MAX_ENTRIES = 10_000;
const MAX_PATH = 62;
const MAX_SIGNATURES = 100;

function check(holds, kind, message) {
  if (!holds) throw new Refused(kind, message);
}

const form = (holds, message) => check(holds, "ProofBundle", message);

function subtle() {
  check(globalThis.crypto?.subtle, "Platform", "this browser gives pages cryptography only over HTTPS, from this machine, or from a file: save the offline page and open that");
  return globalThis.crypto.subtle;
}

const sha256 = async (...parts) => new Uint8Array(await subtle().digest("SHA-256", concat(...parts)));
const nodeHash = (left, right) => sha256([1], left, right);

// Verifier keys and policies (C2SP signed-note, tlog-policy).
const ED25519 = 1;
const ED25519_COSIGNATURE = 4;
const ML_DSA_44_COSIGNATURE = 6;

// The y of all points of small order, sign left out: under such a key anything verifies.
const SMALL_ORDER = new Set([
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  ...["ec", "ed", "ee"].map((first) => `${first}${"ff".repeat(30)}7f`),
]);
const isSmallOrder = (point) => SMALL_ORDER.has(hex([...point.subarray(0, 31), point[31] & 0x7f]));
const isKeyName = (name) => isText(name) && name !== "" && !/[\p{White_Space}+\x00-\x1f]/u.test(name);

export async function parseKey(text) {
  const not = (holds, why) => check(holds, "VerifierKey", `not a verifier key: ${why}`);
  const [, name, id, encoded] = /^([^+]*)\+([0-9a-f]{8})\+(.*)$/s.exec(text) ?? [];
  not(id !== undefined && isKeyName(name), "it has not the form name+id+key");
  const key = unbase64(encoded);
  not(key !== null && key.length > 0, "the key is not base64");
  const [type, bytes] = [key[0], key.subarray(1)];
  check([ED25519, ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE].includes(type), "SignatureType", `signature type ${type} is not supported`);
  not(hex((await sha256(utf8(name), [10], key)).subarray(0, 4)) === id, "the id is not that of the key");
  not(bytes.length === (type === ML_DSA_44_COSIGNATURE ? 1312 : 32), "it has the wrong length");
  not(type === ML_DSA_44_COSIGNATURE || !isSmallOrder(bytes), "it is a weak key");
  return { text, name, id, type, bytes, imported: await importKey(type, bytes) };
}

async function importKey(type, bytes) {
  const [format, algorithm] = type === ML_DSA_44_COSIGNATURE ? ["raw-public", "ML-DSA-44"] : ["raw", "Ed25519"];
  try {
    return await subtle().importKey(format, bytes, algorithm, true, ["verify"]);
  } catch (error) {
    throw error instanceof Refused ? error : new Refused("Platform", `this browser does not know ${algorithm}`);
  }
}

/** From the text of a policy file, or verifier keys of logs alone, with commas or space between them. */
export async function parsePolicy(text) {
  if (/^\s*(#|(log|witness|group|quorum)[ \t])/.test(text)) return parsePolicyFile(text);
  const keys = text.split(/[\s,]+/).filter((key) => key !== "");
  check(keys.length > 0, "VerifierKey", "no verifier key");
  return { logs: await Promise.all(keys.map(parseKey)), witnesses: [], groups: [], quorum: "none" };
}

async function parsePolicyFile(text) {
  const policy = { logs: [], witnesses: [], groups: [], quorum: null };
  const [names, grouped] = [new Set(), new Set()];
  const not = (holds, why) => check(holds, "Policy", `not a policy: ${why}`);
  const define = (name) => not(name !== "none" && !names.has(name) && names.add(name), `${name} is taken`);
  const distinct = (keys, key) => not(!keys.some((other) => equal(other.bytes, key.bytes)), "a key is there twice");
  not(text.endsWith("\n"), "the last line has no newline");
  for (const line of text.split("\n")) {
    not(!/[\x00-\x08\x0a-\x1f\x7f]/.test(line), "it has a control character");
    const [keyword, ...items] = line.split(/[ \t]+/).filter((item) => item !== "");
    if (keyword === undefined || keyword.startsWith("#")) continue;
    if (keyword === "log" && [1, 2].includes(items.length)) {
      const key = await parseKey(items[0]);
      distinct(policy.logs, key);
      policy.logs.push(key);
    } else if (keyword === "witness" && [2, 3].includes(items.length)) {
      const key = await parseKey(items[1]);
      not(key.type !== ED25519, "the key of a witness is not one that cosigns");
      distinct(policy.witnesses.map((witness) => witness.key), key);
      define(items[0]);
      policy.witnesses.push({ name: items[0], key });
    } else if (keyword === "group" && items.length > 2) {
      const [name, threshold, ...members] = items;
      for (const member of members) {
        not(names.has(member) && !grouped.has(member) && grouped.add(member), `${member} is not defined, or in a group already`);
      }
      const count = threshold === "any" ? 1 : threshold === "all" ? members.length : Number(decimal(threshold) ?? 0n);
      not(count >= 1 && count <= members.length, "the threshold is not any, all, or a number of members");
      define(name);
      policy.groups.push({ name, count, members });
    } else if (keyword === "quorum" && items.length === 1) {
      not(policy.quorum === null && (items[0] === "none" || names.has(items[0])), "the quorum is not defined, or there are two");
      [policy.quorum] = items;
    } else {
      not(false, `it is no line that begins with ${keyword}`);
    }
  }
  not(policy.quorum !== null, "there is no quorum line");
  return policy;
}

// Notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature).
function parseNote(note) {
  form(isText(note) && !/[\x00-\x09\x0b-\x1f]/.test(note), "a checkpoint has a control character");
  const end = note.lastIndexOf("\n\n");
  form(end >= 0 && note.endsWith("\n"), "a checkpoint is not a signed note");
  const lines = note.slice(end + 2, -1).split("\n");
  form(lines.length <= MAX_SIGNATURES, "a checkpoint has too many signatures");
  const signatures = lines.map((line) => {
    const [, name, encoded] = /^— ([^ ]*) (.*)$/.exec(line) ?? [];
    const blob = unbase64(encoded);
    form(isKeyName(name) && blob !== null && blob.length > 4, "a checkpoint has a malformed signature");
    return { name, id: hex(blob.subarray(0, 4)), payload: blob.subarray(4) };
  });
  return { text: note.slice(0, end + 1), signatures };
}

async function parseCheckpoint(text) {
  const [origin, sizeText, rootText, ...extensions] = text.slice(0, -1).split("\n");
  const [size, root] = [decimal(sizeText), unbase64(rootText)];
  const is = origin !== "" && size !== null && size <= MAX_SIZE && root?.length === 32 && !extensions.includes("");
  check(is && (size > 0n || equal(root, await sha256())), "Checkpoint", "the signed text is no checkpoint");
  return { origin, size, root };
}

/** Whether a signature's payload is one by `key` over the checkpoint. */
async function isSignature({ text, payload, checkpoint }, key) {
  const timed = key.type !== ED25519;
  const signature = timed ? payload.subarray(8) : payload;
  const time = number(payload.subarray(0, 8));
  if (timed && (payload.length < 8 || time >= 2n ** 63n)) return false;
  if (key.type !== ML_DSA_44_COSIGNATURE) {
    const message = timed ? `cosignature/v1\ntime ${time}\n${text}` : text;
    if (signature.length !== 64 || isSmallOrder(signature.subarray(0, 32))) return false;
    return subtle().verify("Ed25519", key.imported, signature, utf8(message));
  }
  const [name, origin] = [utf8(key.name), utf8(checkpoint.origin)];
  if (name.length > 255 || origin.length > 255) return false;
  const state = concat(bytesOf64(0n), bytesOf64(checkpoint.size), checkpoint.root);
  const message = concat(utf8("subtree/v1\n\0"), [name.length], name, bytesOf64(time), [origin.length], origin, state);
  return subtle().verify("ML-DSA-44", key.imported, signature, message);
}

/** The checkpoint of a note that a known log has signed, and who has cosigned it. */
async function verifyNote({ text, signatures }, policy) {
  const checkpoint = await parseCheckpoint(text);
  const logs = policy.logs.filter((key) => key.name === checkpoint.origin);
  check(logs.length > 0, "UnknownLog", `no key is known for the log ${checkpoint.origin}`);
  const known = [...logs, ...policy.witnesses.map((witness) => witness.key)];
  const times = new Map();
  for (const { name, id, payload } of signatures) {
    for (const key of known.filter((key) => key.name === name && key.id === id)) {
      check(await isSignature({ text, payload, checkpoint }, key), "BadSignature", `the signature by ${name}+${id} is false`);
      if (!times.has(key)) times.set(key, number(payload.subarray(0, 8)));
    }
  }
  const key = logs.find((key) => times.has(key));
  check(key, "NotSignedByLog", `the log ${checkpoint.origin} has not signed the checkpoint with a known key`);
  const cosigners = policy.witnesses.filter((witness) => times.has(witness.key));
  return { ...checkpoint, text, key, cosigned: cosigners.map(({ name, key }) => ({ witness: name, time: times.get(key) })) };
}

function checkQuorum({ cosigned }, { groups, quorum }) {
  const holding = new Set(cosigned.map(({ witness }) => witness));
  for (const { name, count, members } of groups) {
    if (members.filter((member) => holding.has(member)).length >= count) holding.add(name);
  }
  check(quorum === "none" || holding.has(quorum), "Quorum", `too few known witnesses have cosigned for the quorum ${quorum}: ${cosigned.length}`);
}

// Proofs (RFC 9162 §2.1.3.2 and §2.1.4.2).

/** Hashes up the path; each step is recorded in `trace` for whoever draws it. */
async function checkInclusion({ leafHash, index, path, trace }, { size, root }) {
  const not = (holds, why) => check(holds, "Inclusion", `the entry ${index} is not proven: ${why}`);
  not(index < size, `the tree has ${size} leaves`);
  let [at, last, found] = [index, size - 1n, leafHash];
  for (const sibling of path) {
    not(last > 0n, "the path is too long");
    const left = Boolean(at & 1n) || at === last;
    found = await (left ? nodeHash(sibling, found) : nodeHash(found, sibling));
    trace.push({ sibling, side: left ? "left" : "right", hash: found });
    while (left && !(at & 1n)) [at, last] = [at >> 1n, last >> 1n];
    [at, last] = [at >> 1n, last >> 1n];
  }
  not(last === 0n, "the path is too short");
  not(equal(found, root), "the path leads to another root than the one that is signed");
}

/** One proof of several leaves in order: what is not known of a level is the next of `nodes`. Records the steps of each. */
async function checkTogether(leaves, nodes, { size, root }) {
  const not = (holds, why) => check(holds, "Inclusions", `the entries are not proven together: ${why}`);
  not(leaves[leaves.length - 1].index < size, `the tree has ${size} leaves`);
  const rest = nodes[Symbol.iterator]();
  let known = leaves.map((leaf) => ({ at: leaf.index, hash: leaf.leafHash, below: [leaf] }));
  for (let width = size; width > 1n; width = (width + 1n) / 2n) {
    const above = [];
    for (let i = 0; i < known.length; i += 1) {
      const node = known[i];
      const [at, sibling] = [node.at / 2n, node.at ^ 1n];
      if (sibling >= width) {
        above.push({ ...node, at });
        continue;
      }
      if (known[i + 1]?.at === sibling) i += 1;
      const other = known[i] === node ? { hash: rest.next().value, below: [] } : known[i];
      not(other.hash, "a node is missing");
      const [left, right] = sibling < node.at ? [other, node] : [node, other];
      const hash = await nodeHash(left.hash, right.hash);
      for (const { trace } of left.below) trace.push({ sibling: right.hash, side: "right", hash });
      for (const { trace } of right.below) trace.push({ sibling: left.hash, side: "left", hash });
      above.push({ at, hash, below: [...left.below, ...right.below] });
    }
    known = above;
  }
  not(rest.next().done, "a node is not needed");
  not(equal(known[0].hash, root), "the nodes lead to another root than the one that is signed");
}

async function checkConsistency(from, to, path) {
  const not = (holds, why) => check(holds, "Consistency", `that the log only grew is not proven: ${why}`);
  not(from.size <= to.size, "the sizes are reversed");
  if (from.size === 0n || from.size === to.size) return not(path.length === 0, "the path is too long");
  const nodes = from.size & (from.size - 1n) ? [...path] : [from.root, ...path];
  not(nodes.length > 0, "the path is too short");
  let [at, last] = [from.size - 1n, to.size - 1n];
  while (at & 1n) [at, last] = [at >> 1n, last >> 1n];
  let [before, after] = [nodes[0], nodes[0]];
  for (const sibling of nodes.slice(1)) {
    not(last > 0n, "the path is too long");
    const left = Boolean(at & 1n) || at === last;
    if (left) before = await nodeHash(sibling, before);
    after = await (left ? nodeHash(sibling, after) : nodeHash(after, sibling));
    while (left && !(at & 1n) && at) [at, last] = [at >> 1n, last >> 1n];
    [at, last] = [at >> 1n, last >> 1n];
  }
  not(last === 0n, "the path is too short");
  not(equal(before, from.root) && equal(after, to.root), "the path leads to other roots than those that are signed");
}

// Documents. Both forms become the same objects: bytes are Uint8Arrays, indexes bigints.
const JSON_FORM = {
  bytes: unbase64,
  index: decimal,
  place: (value) => (Number.isInteger(value) ? value : null),
};
const CBOR_FORM = {
  bytes: (value) => (isBytes(value) ? value : null),
  index: (value) => (isInteger(value) ? value : null),
  place: (value) => (isInteger(value) && value >= 0n && value < 2n ** 32n ? Number(value) : null),
};

/** What someone pasted, as bytes: JSON as it is, or CBOR in hexadecimal digits or base64. */
export function bytesOf(pasted) {
  const text = pasted.trim();
  if (text.startsWith("{")) return utf8(text);
  const packed = text.replace(/^\\x/, "").replace(/\s/g, "");
  if (/^([0-9a-f]{2})+$/i.test(packed)) return unhex(packed);
  const bytes = unbase64(packed);
  form(bytes?.length > 0, "this is neither JSON, nor hexadecimal digits, nor base64");
  return bytes;
}

/** JSON whose objects have no member twice, and whose values are those that the formats have. */
function parseJson(text) {
  const value = JSON.parse(text);
  const outsideTexts = text.replace(/"(?:[^"\\]|\\.)*"/g, "");
  const members = (value) => (value !== null && typeof value === "object" ? Object.values(value).reduce((sum, inner) => sum + members(inner), Array.isArray(value) ? 0 : Object.keys(value).length) : 0);
  form(outsideTexts.split(":").length - 1 === members(value), "a field is there twice");
  form(/^[\s\d{}[\],:]*$/.test(outsideTexts), "it has a value that the format does not have");
  return [value, JSON_FORM];
}

function objectOf(cbor) {
  if (Array.isArray(cbor)) return cbor.map(objectOf);
  form(!(cbor instanceof Map) || [...cbor.keys()].every(isText), "a field's name is no text");
  return cbor instanceof Map ? Object.fromEntries([...cbor].map(([name, value]) => [name, objectOf(value)])) : cbor;
}

function parseDocument(bytes) {
  try {
    const first = bytes.find((byte) => ![0x20, 0x09, 0x0a, 0x0c, 0x0d].includes(byte));
    return first === 0x7b ? parseJson(fromUtf8(bytes)) : [objectOf(decodeCbor(bytes)), CBOR_FORM];
  } catch (error) {
    throw error instanceof Refused ? error : new Refused("ProofBundle", `it is malformed: ${error.message}`);
  }
}

function fields(value, required, optional = []) {
  const is = value !== null && typeof value === "object" && !Array.isArray(value) && !isBytes(value);
  const names = is ? Object.keys(value) : [];
  const right = required.every((name) => names.includes(name)) && names.every((name) => [...required, ...optional].includes(name));
  form(is && right, "it has not the fields of the format");
}

function list(value, message = "a list is missing") {
  form(Array.isArray(value), message);
  return value;
}

function hash(value) {
  form(value?.length === 32, "a hash has not 32 bytes");
  return value;
}

function parseEntry(entry, as, paths) {
  fields(entry, ["index", ...paths], ["leaf_data", "leaf_hash", "source", "key"]);
  form("leaf_data" in entry !== "leaf_hash" in entry, "an entry has not one of leaf_data and leaf_hash");
  form("source" in entry === "key" in entry, "an entry has not both or neither of source and key");
  const index = as.index(entry.index);
  form(index !== null && index >= 0n && index < MAX_SIZE, "an index is no index");
  const data = "leaf_data" in entry ? as.bytes(entry.leaf_data) : null;
  form(data !== null || "leaf_hash" in entry, "leaf data are not base64");
  const leafHash = data === null ? hash(as.bytes(entry.leaf_hash)) : null;
  if ("key" in entry) {
    const pairs = list(entry.key).every((pair) => Array.isArray(pair) && pair.length === 2 && pair.every(isText));
    form(isText(entry.source) && pairs, "source or key are no texts");
    form(new Set(entry.key.map(([name]) => name)).size === entry.key.length, "a key column is there twice");
  }
  const label = "source" in entry ? { source: entry.source, key: entry.key } : null;
  return { index, data, leafHash, label };
}

/** Of each entry the path, in version 1. */
function parsePaths(entries, nodes, as) {
  const places = entries.map(({ path }) => list(path).map(as.place));
  const isPath = (path) => path.length <= MAX_PATH && path.every((place) => place !== null && place < nodes.length);
  form(places.every(isPath), "a path is no path");
  const needed = [...new Set(places.flat())];
  const distinct = new Set(nodes.map(hex)).size === nodes.length;
  form(distinct && needed.length === nodes.length && needed.every((place, i) => place === i), "the nodes are not those of the paths, each once and in their order");
  return places.map((path) => path.map((place) => nodes[place]));
}

function parseBundle(value, as, level = 0) {
  fields(value, ["format", "checkpoint", "nodes", "entries"], ["hub"]);
  const together = value.format === BUNDLE_AT_ONCE;
  form(together || value.format === BUNDLE, `its format is neither ${BUNDLE} nor ${BUNDLE_AT_ONCE}`);
  form(level < MAX_LEVELS, "too many bundles are nested");
  const nodes = list(value.nodes).map((node) => hash(as.bytes(node)));
  form(list(value.entries).length <= MAX_ENTRIES, "it has too many entries");
  const entries = value.entries.map((entry) => parseEntry(entry, as, together ? [] : ["path"]));
  const paths = together ? null : parsePaths(value.entries, nodes, as);
  const sorted = entries.every(({ index }, i) => i === 0 || entries[i - 1].index < index);
  form(entries.length > 0 && sorted, "the entries are not in the order of their indexes, or there are none");
  form(level === 0 || entries.length === 1, "the hub's bundle has more than one entry");
  form(!together || entries.length > 1, "a proof of several entries at once has one entry");
  const hub = "hub" in value ? parseBundle(value.hub, as, level + 1) : null;
  return { note: parseNote(value.checkpoint), entries, nodes, paths, hub };
}

function parseConsistency(value, as) {
  fields(value, ["format", "old", "new", "path"]);
  form(value.format === CONSISTENCY, `its format is not ${CONSISTENCY}`);
  const path = list(value.path).map((node) => hash(as.bytes(node)));
  return { from: parseNote(value.old), to: parseNote(value.new), path };
}

// Verification.

/** What a document says, step by step, and whether each step holds. */
class Report {
  steps = [];
  entries = [];
  proven = null;
  problem = null;

  /** @returns what `act` returns; if it refuses, the step is the one that does not hold. */
  async step(what, act, detail = () => "") {
    const step = { what, holds: false, detail: "" };
    this.steps.push(step);
    try {
      const result = await act();
      step.holds = true;
      step.detail = detail(result);
      return result;
    } catch (error) {
      step.detail = error.message;
      throw error;
    }
  }

  /** proven; false: something in it is shown to be false; unknown: it cannot be told. */
  get verdict() {
    if (this.problem === null) return "proven";
    return this.problem.isFalsehood ? "false" : "unknown";
  }
}

const plural = (count, one, many) => `${count} ${BigInt(count) === 1n ? one : many}`;
const entriesOf = (size) => plural(size, "entry", "entries");
const shownTime = (seconds) => (seconds < 2n ** 40n ? new Date(Number(seconds) * 1000).toISOString().replace(".000Z", "Z") : `${seconds} seconds`);

/** @returns the checkpoint of a note, as two steps of the report: whose it is, and who has cosigned it. */
async function verifyCheckpoint(report, what, note, policy, quorum) {
  const verified = await report.step(`${what} is signed by its log`, () => verifyNote(note, policy), ({ origin, size, key }) => `${origin} has signed the root of ${entriesOf(size)} with the key ${key.name}+${key.id}`);
  const cosigned = verified.cosigned.map(({ witness, time }) => `${witness} at ${shownTime(time)}`).join(", ");
  const asked = quorum && policy.quorum !== "none";
  if (!asked && cosigned === "") return verified;
  await report.step(asked ? `Witnesses have cosigned ${what.toLowerCase()} as the quorum ${policy.quorum} asks` : `Witnesses have cosigned ${what.toLowerCase()}`, () => asked && checkQuorum(verified, policy), () => cosigned);
  return verified;
}

async function readEntry(report, entry, checkpoint) {
  const { index, data, label } = entry;
  const of = `entry ${index}`;
  const withheld = data === null;
  const leafHash = await report.step(withheld ? `The leaf hash of ${of} is in the document` : `The leaf hash of ${of} follows from its leaf data`, () => (withheld ? entry.leafHash : sha256([0], data)), hex);
  const proven = { index, leafHash, data, leaf: withheld ? null : decodeLeaf(data), label, trace: [], holds: false, origin: checkpoint.origin, root: checkpoint.root };
  report.entries.push(proven);
  return proven;
}

async function verifyPath(report, entry, path, checkpoint) {
  const leads = () => checkInclusion({ ...entry, path }, checkpoint);
  await report.step(`The path of entry ${entry.index} leads to the signed root`, leads, () => `${plural(path.length, "hash", "hashes")} up to ${hex(checkpoint.root)}`);
  entry.holds = true;
}

async function verifyTogether(report, entries, nodes, checkpoint) {
  const lead = () => checkTogether(entries, nodes, checkpoint);
  await report.step(`One proof leads from ${entriesOf(entries.length)} to the signed root`, lead, () => `${plural(nodes.length, "hash", "hashes")} up to ${hex(checkpoint.root)}`);
  for (const entry of entries) entry.holds = true;
}

async function verifyLabel(report, { index, label, leaf }) {
  if (label === null || leaf === null) return;
  await report.step(`The label of entry ${index} does not contradict its leaf data`, () => checkLabel(label, leaf));
}

function checkLabel({ source, key }, leaf) {
  const not = (holds, why) => check(holds, "Contradiction", why);
  not(source === leaf.source, "the leaf data are of another source");
  if (!(leaf.columns instanceof Map)) return;
  for (const [name, text] of key) {
    not(leaf.columns.has(name), "the leaf data have no such key column");
    const value = leaf.columns.get(name);
    not(!isInteger(value) || !/^[+-]?[0-9]+$/.test(text) || text === String(value), "the leaf data have another key");
  }
}

async function verifyBundle(report, { note, entries, nodes, paths, hub }, policy, of = "The checkpoint") {
  const checkpoint = await verifyCheckpoint(report, of, note, policy, hub === null);
  const proven = { ...checkpoint, entries: [], hub: null };
  for (const [i, entry] of entries.entries()) {
    const read = await readEntry(report, entry, checkpoint);
    proven.entries.push(read);
    if (paths === null) continue;
    await verifyPath(report, read, paths[i], checkpoint);
    await verifyLabel(report, read);
  }
  if (paths === null) {
    await verifyTogether(report, proven.entries, nodes, checkpoint);
    for (const read of proven.entries) await verifyLabel(report, read);
  }
  if (hub === null) return proven;
  proven.hub = await verifyBundle(report, hub, policy, "The hub's checkpoint");
  await report.step("The hub contains the checkpoint", () => checkHub(proven.hub.entries[0], note.text));
  return proven;
}

/** That the entry of a hub holds the checkpoint with this text, with its signatures or without. */
function checkHub({ data, leaf }, text) {
  const not = (holds, why) => check(holds, "Contradiction", why);
  let held = null;
  if (leaf !== null) held = ["insert", "update"].includes(leaf.kind) && leaf.columns instanceof Map ? leaf.columns.get("checkpoint") : null;
  else if (data !== null) held = textOf(data);
  not(typeof held === "string", "the hub's entry holds no checkpoint");
  not(held === text || noteText(held) === text, "the hub's entry holds another checkpoint");
}

function textOf(data) {
  try {
    return fromUtf8(data);
  } catch {
    return null;
  }
}

function noteText(held) {
  try {
    return parseNote(held).text;
  } catch {
    return null;
  }
}

async function verifyConsistency(report, { from, to, path }, policy) {
  const old = await verifyCheckpoint(report, "The older checkpoint", from, policy, false);
  const now = await verifyCheckpoint(report, "The newer checkpoint", to, policy, true);
  await report.step("The log only grew", async () => {
    check(old.origin === now.origin, "Contradiction", "the checkpoints are those of two logs");
    const fork = old.size === now.size && !equal(old.root, now.root);
    check(!fork, "Fork", `the log ${old.origin} has signed two roots at size ${old.size}`);
    await checkConsistency(old, now, path);
  }, () => `from ${old.size} to ${entriesOf(now.size)}`);
  return { ...now, entries: [], hub: null, old };
}

/**
 * What `document` (bytes) proves to who trusts `policy`: a report with `verdict`, `steps`, and either `proven` or
 * `problem`. `entries` has all entries that were looked at, with their paths as far as they were walked.
 */
export async function verify(document, policy) {
  const report = new Report();
  try {
    const isConsistency = (value) => value?.format === CONSISTENCY;
    const parsed = await report.step("The document is a proof", () => {
      const [value, as] = parseDocument(document);
      return isConsistency(value) ? parseConsistency(value, as) : parseBundle(value, as);
    }, (parsed) => ("from" in parsed ? CONSISTENCY : parsed.paths === null ? BUNDLE_AT_ONCE : BUNDLE));
    report.proven = "from" in parsed ? await verifyConsistency(report, parsed, policy) : await verifyBundle(report, parsed, policy);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    report.problem = error;
  }
  return report;
}
