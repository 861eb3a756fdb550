#!/usr/bin/env node
// Checks a proof bundle or a consistency proof of merkle_log, in JSON or CBOR: docs/proof-format.md.
//
//     main.js KEY FILE                KEY: the log's verifier key; of several logs, separated by commas; or @POLICYFILE
//     main.js --vectors FILE          the vectors of the specification
//     main.js --leaves FILE           those of docs/leaf-format.md
import { webcrypto } from "node:crypto";
import { readFileSync } from "node:fs";
import { hex, unhex, utf8 } from "./bytes.js";
import { decodeCbor, decodeLeaf } from "./leaf-data.js";
import { Refused, parsePolicy, verify } from "./verify.js";

// Node 18 has it, and not under its name.
globalThis.crypto ??= webcrypto;

async function said(document, policy) {
  const { verdict, problem, proven } = await verify(document, await parsePolicy(policy));
  return { verdict, problem, proven };
}

const shownLevel = ({ origin, size, root, entries, hub }) => ({
  origin,
  size: String(size),
  root: hex(root),
  entries: entries.map(({ index, leafHash, data }) => ({ index: String(index), leaf_hash: hex(leafHash), ...(data && { leaf_data: hex(data) }) })),
  ...(hub && { hub: shownLevel(hub) }),
});

/** In one order of names. */
const sorted = (value) => (value === null || typeof value !== "object" ? value : Array.isArray(value) ? value.map(sorted) : Object.fromEntries(Object.keys(value).sort().map((name) => [name, sorted(value[name])])));

async function checkVector(group, vector, form, document) {
  const { verdict, problem, proven } = await said(document, vector.policy);
  const expected = vector.error ?? "proven";
  const found = problem?.kind ?? verdict;
  if (found !== expected) throw new Error(`${group}: ${vector.name} (${form}): ${found} ${problem?.message}, not ${expected}`);
  if (group === "bundles" && JSON.stringify(sorted(shownLevel(proven))) !== JSON.stringify(sorted(vector.proven))) throw new Error(`${vector.name}: something else is proven`);
  if (group === "consistency" && [proven.old.size, proven.size].join() !== [vector.old_size, vector.new_size].join()) throw new Error(`${vector.name}: other sizes`);
}

async function checkVectors(path) {
  const vectors = JSON.parse(readFileSync(path, "utf8"));
  let passed = 0;
  for (const group of ["bundles", "bad_bundles", "consistency", "bad_consistency"]) {
    for (const vector of vectors[group]) {
      const forms = { json: vector.json && utf8(vector.json), cbor: "cbor" in vector && unhex(vector.cbor) };
      for (const form of ["json", "cbor"].filter((form) => form in vector)) {
        await checkVector(group, vector, form, forms[form]);
        passed += 1;
      }
    }
  }
  console.log(`javascript: ${passed} vectors passed`);
  return passed > 0 ? 0 : 1;
}

function checkLeaves(path) {
  const { values, leaves } = JSON.parse(readFileSync(path, "utf8"));
  for (const { cbor } of values) decodeCbor(unhex(cbor));
  for (const { name, source, kind, leaf_data: data } of leaves) {
    const leaf = decodeLeaf(unhex(data));
    if (leaf?.source !== source || leaf.kind !== kind) throw new Error(`${name}: other leaf data`);
    if (decodeLeaf(unhex(`${data}00`)) !== null) throw new Error(`${name}: a byte too many is not noticed`);
  }
  console.log(`javascript: ${values.length} values and ${leaves.length} leaves read`);
  return 0;
}

async function main([first, path]) {
  if (first === "--vectors") return checkVectors(path);
  if (first === "--leaves") return checkLeaves(path);
  try {
    const policy = first.startsWith("@") ? readFileSync(first.slice(1), "utf8") : first;
    const { problem, proven } = await said(readFileSync(path), policy);
    if (problem) throw problem;
    console.log(`proven: ${proven.origin} ${proven.size}`);
    for (const { index, leafHash, data, leaf } of proven.entries) {
      console.log(`entry ${index} ${hex(leafHash)}`, data === null ? "withheld" : leaf ?? hex(data));
    }
    return 0;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.log(`NOT PROVEN: ${error.message}`);
    return 1;
  }
}

process.exitCode = await main(process.argv.slice(2));
