#!/usr/bin/env node
// Checks a proof bundle or a consistency proof (JSON) of merkle_log: docs/proof-format.md.
//
//     verify.mjs KEY FILE             KEY: the log's verifier key; of several logs, separated by commas
//     verify.mjs --vectors FILE       the vectors of the specification
//
// Node's own modules only; it shares no code with the project. Witnesses are not looked at.
import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";
import { readFileSync } from "node:fs";

/** What is claimed is not proven. */
class Refused extends Error {}

function require(holds, why) {
  if (!holds) throw new Refused(why);
}

// Base64, numbers, hashes.
function unbase64(text) {
  require(typeof text === "string", "not base64");
  const bytes = Buffer.from(text, "base64");
  require(bytes.toString("base64") === text, "not base64");
  return bytes;
}

function unhash(text) {
  const bytes = unbase64(text);
  require(bytes.length === 32, "a hash has 32 bytes");
  return bytes;
}

function number(text) {
  require(typeof text === "string" && /^(0|[1-9][0-9]*)$/.test(text), "not a decimal number");
  return BigInt(text);
}

const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts.map((p) => Buffer.from(p)))).digest();
const node = (left, right) => sha256([1], left, right);
const array = (value) => (require(Array.isArray(value), "not an array"), value);

// Notes and checkpoints.
function parseKey(text) {
  const [, name, id, encoded] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(text) ?? [];
  const key = unbase64(encoded);
  const computed = sha256(name, "\n", key).subarray(0, 4).toString("hex");
  require(computed === id && key[0] === 1 && key.length === 33, "not an Ed25519 key");
  const x = key.subarray(1).toString("base64url");
  return { name, id, key: createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }) };
}

/** Origin, size, root and text of a note that a known log has signed. */
function checkpoint(note, keys) {
  require(typeof note === "string" && !/[\x00-\x09\x0b-\x1f]/.test(note), "control characters");
  const end = note.lastIndexOf("\n\n");
  require(end >= 0 && note.endsWith("\n"), "not a signed note");
  const [text, signatures] = [note.slice(0, end + 1), note.slice(end + 2, -1)];
  const [origin, size, root, ...extensions] = text.slice(0, -1).split("\n");
  require(origin && root !== undefined && !extensions.includes(""), "not a checkpoint");
  const known = keys.filter((key) => key.name === origin);
  require(known.length > 0, `no key is known for ${origin}`);
  let verified = 0;
  for (const line of signatures.split("\n")) {
    const [, name, encoded] = /^— ([^\s+]+) (\S+)$/.exec(line) ?? [];
    const blob = unbase64(encoded);
    require(blob.length > 4, "no signature");
    const id = blob.subarray(0, 4).toString("hex");
    for (const key of known.filter((key) => key.name === name && key.id === id)) {
      require(verifySignature(null, Buffer.from(text), key.key, blob.subarray(4)), "a signature is false");
      verified += 1;
    }
  }
  require(verified > 0, `no known key of ${origin} has signed`);
  return { origin, size: number(size), root: unhash(root), text };
}

// Proofs (RFC 9162 §2.1.3.2 and §2.1.4.2).
function checkInclusion(leafHash, index, size, path, root) {
  require(index < size, "the index is beyond the tree");
  let [at, last, found] = [index, size - 1n, leafHash];
  for (const sibling of path) {
    require(last > 0n, "the path is too long");
    if (at & 1n || at === last) {
      found = node(sibling, found);
      while (!(at & 1n) && at) [at, last] = [at >> 1n, last >> 1n];
    } else {
      found = node(found, sibling);
    }
    [at, last] = [at >> 1n, last >> 1n];
  }
  require(last === 0n && found.equals(root), `entry ${index} is not proven`);
}

function checkConsistency(oldSize, oldRoot, newSize, newRoot, path) {
  require(oldSize <= newSize, "the sizes are reversed");
  if (oldSize === 0n || oldSize === newSize) {
    const expected = oldSize === 0n ? sha256() : newRoot;
    require(path.length === 0 && oldRoot.equals(expected), "not consistent");
    return;
  }
  const nodes = oldSize & (oldSize - 1n) ? [...path] : [oldRoot, ...path];
  require(nodes.length > 0, "the path is too short");
  let [at, last] = [oldSize - 1n, newSize - 1n];
  while (at & 1n) [at, last] = [at >> 1n, last >> 1n];
  let [before, after] = [nodes[0], nodes[0]];
  for (const sibling of nodes.slice(1)) {
    require(last > 0n, "the path is too long");
    if (at & 1n || at === last) {
      [before, after] = [node(sibling, before), node(sibling, after)];
      while (!(at & 1n) && at) [at, last] = [at >> 1n, last >> 1n];
    } else {
      after = node(after, sibling);
    }
    [at, last] = [at >> 1n, last >> 1n];
  }
  require(last === 0n && before.equals(oldRoot) && after.equals(newRoot), "not consistent");
}

// Leaf data (docs/leaf-format.md): CBOR, as far as columns are looked at.
function cbor(data, at = 0) {
  require(at < data.length && (data[at] & 31) <= 27, "not leaf data");
  const [major, info] = [data[at] >> 5, data[at] & 31];
  at += 1;
  const width = info < 24 ? 0 : 1 << (info - 24);
  require(at + width <= data.length, "not leaf data");
  const value = width ? BigInt(`0x${data.subarray(at, at + width).toString("hex")}`) : BigInt(info);
  at += width;
  const items = (count) => {
    const found = [];
    for (let n = 0n; n < count; n += 1n) {
      const [item, next] = cbor(data, at);
      found.push(item);
      at = next;
    }
    return found;
  };
  switch (major) {
    case 0: return [value, at];
    case 1: return [-1n - value, at];
    case 2:
    case 3: {
      const end = at + Number(value);
      require(end <= data.length, "not leaf data");
      const bytes = data.subarray(at, end);
      return [major === 2 ? bytes : new TextDecoder("utf-8", { fatal: true }).decode(bytes), end];
    }
    case 4: return [items(value), at];
    case 5: {
      const flat = items(2n * value);
      return [new Map(flat.flatMap((name, i) => (i % 2 ? [] : [[name, flat[i + 1]]]))), at];
    }
    case 6: return [{ tag: value, content: items(1n)[0] }, at];
    default: return [{ simple: value }, at];
  }
}

/** Source, kind and columns of leaf data of format 1; null for other data. */
function row(data) {
  try {
    const [value, end] = cbor(data);
    const is = end === data.length && value[0] === 1n && (value.length === 4 || value.length === 5);
    return is ? { source: value[1], kind: value[2], columns: value[3] } : null;
  } catch {
    return null;
  }
}

function checkLabel(entry, found) {
  if (!("source" in entry) || found === null) return;
  require(found.source === entry.source, "the leaf data are of another source");
  if (!(found.columns instanceof Map)) return;
  for (const [name, text] of entry.key) {
    require(found.columns.has(name), "the leaf data have no such key column");
    const value = found.columns.get(name);
    const integers = typeof value === "bigint" && /^[+-]?[0-9]+$/.test(text);
    require(!integers || text === String(value), "the leaf data have another key");
  }
}

// Bundles.
function fields(value, required, optional = []) {
  require(value !== null && typeof value === "object" && !Array.isArray(value), "not an object");
  const names = Object.keys(value);
  const right = required.every((name) => names.includes(name)) && names.every((name) => required.includes(name) || optional.includes(name));
  require(right, "not the fields of the format");
}

function checkNodes(nodes, entries) {
  const places = [...new Set(entries.flatMap((entry) => array(entry.path)))];
  const inOrder = places.length === nodes.length && places.every((place, i) => place === i);
  const distinct = new Set(nodes.map((n) => n.toString("hex"))).size === nodes.length;
  require(inOrder && distinct, "not the nodes of the paths");
}

/** What is proven: origin, size, root, and of each entry index, leaf hash, leaf data if they are there. */
function verifyBundle(bundle, keys) {
  fields(bundle, ["format", "checkpoint", "nodes", "entries"], ["hub"]);
  require(bundle.format === "merkle_log/proof-bundle@v1", "another format");
  const { origin, size, root, text } = checkpoint(bundle.checkpoint, keys);
  const nodes = array(bundle.nodes).map(unhash);
  checkNodes(nodes, array(bundle.entries));
  const proven = [];
  for (const entry of bundle.entries) {
    fields(entry, ["index", "path"], ["leaf_data", "leaf_hash", "source", "key"]);
    require("leaf_data" in entry !== "leaf_hash" in entry, "not one of leaf_data and leaf_hash");
    require("source" in entry === "key" in entry, "source or key alone");
    const names = array(entry.key ?? []).map(([name]) => name);
    require(new Set(names).size === names.length, "a key column twice");
    const data = "leaf_data" in entry ? unbase64(entry.leaf_data) : null;
    const leafHash = data === null ? unhash(entry.leaf_hash) : sha256([0], data);
    const index = number(entry.index);
    require(proven.length === 0 || proven.at(-1).index < index, "entries out of order");
    checkInclusion(leafHash, index, size, entry.path.map((place) => nodes[place]), root);
    if (data !== null) checkLabel(entry, row(data));
    proven.push({ index, leafHash, data });
  }
  require(proven.length > 0, "no entries");
  if ("hub" in bundle) checkHub(verifyBundle(bundle.hub, keys), text);
  return { origin, size, root, entries: proven };
}

/** That the one entry of the hub holds the checkpoint with this text. */
function checkHub({ entries }, text) {
  require(entries.length === 1 && entries[0].data !== null, "the hub's entry is not there");
  const found = row(entries[0].data);
  let held = found === null ? entries[0].data.toString() : undefined;
  if (found !== null && ["insert", "update"].includes(found.kind) && found.columns instanceof Map) {
    held = found.columns.get("checkpoint");
  }
  require(typeof held === "string", "the hub's entry holds no checkpoint");
  const end = held.lastIndexOf("\n\n");
  require(held === text || held.slice(0, end + 1) === text, "the hub holds another checkpoint");
}

function verifyConsistency(proof, keys) {
  fields(proof, ["format", "old", "new", "path"]);
  require(proof.format === "merkle_log/consistency@v1", "another format");
  const [from, to] = [checkpoint(proof.old, keys), checkpoint(proof.new, keys)];
  require(from.origin === to.origin, "checkpoints of two logs");
  checkConsistency(from.size, from.root, to.size, to.root, array(proof.path).map(unhash));
  return { origin: to.origin, size: to.size, root: to.root, entries: [] };
}

function verify(text, keys) {
  try {
    const document = JSON.parse(text);
    return "old" in document ? verifyConsistency(document, keys) : verifyBundle(document, keys);
  } catch (error) {
    throw error instanceof Refused ? error : new Refused(`malformed: ${error.message}`);
  }
}

function checkVectors(path) {
  const vectors = JSON.parse(readFileSync(path, "utf8"));
  let [passed, skipped] = [0, 0];
  for (const [group, good] of [["bundles", true], ["bad_bundles", false], ["consistency", true], ["bad_consistency", false]]) {
    for (const vector of vectors[group]) {
      if (!("json" in vector) || (vector.policy.includes("witness ") && !good)) {
        skipped += 1;
        continue;
      }
      const keys = vector.policy.split("\n").filter((line) => line.startsWith("log ")).map((line) => parseKey(line.split(" ")[1]));
      let found = null;
      try {
        found = verify(vector.json, keys);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
      }
      if ((found !== null) !== good) throw new Error(vector.name);
      if (group === "bundles") {
        const shown = (hashes) => JSON.stringify(hashes);
        const { origin, size, root, entries } = vector.proven;
        const got = [found.origin, String(found.size), found.root.toString("hex"), ...found.entries.map((e) => [String(e.index), e.leafHash.toString("hex")])];
        if (shown(got) !== shown([origin, size, root, ...entries.map((e) => [e.index, e.leaf_hash])])) throw new Error(vector.name);
      }
      passed += 1;
    }
  }
  console.log(`javascript: ${passed} vectors passed, ${skipped} are about CBOR or witnesses`);
  return passed > 0 ? 0 : 1;
}

function main([first, path]) {
  if (first === "--vectors") return checkVectors(path);
  try {
    const found = verify(readFileSync(path, "utf8"), first.split(",").map(parseKey));
    console.log(`proven: ${found.origin} ${found.size}`);
    for (const { index, leafHash, data } of found.entries) {
      console.log(`entry ${index} ${leafHash.toString("hex")}`, data === null ? "withheld" : row(data) ?? data.toString("hex"));
    }
    return 0;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.log(`NOT PROVEN: ${error.message}`);
    return 1;
  }
}

process.exitCode = main(process.argv.slice(2));
