import { fromUtf8, hex, isBytes, isText, number, printable } from "./bytes.js";

const MAX_LEAF_DATA = 65535;
const MAX_NESTING = 127;

// CBOR in its deterministic form (RFC 8949 §4.2.1): integers are bigints, byte strings Uint8Arrays, maps Maps,
// tags {tag, content}, floats numbers, and the simple values themselves.

/** Whether a float is a half-precision one: 11 significant bits, the last of them not below 2^-24. */
function isHalf(value) {
  if (!Number.isFinite(value)) return true;
  let units = Math.abs(value) * 2 ** 24;
  if (!Number.isInteger(units) || Math.abs(value) > 65504) return false;
  while (units && units % 2 === 0) units /= 2;
  return units < 2 ** 11;
}

function half(bits) {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}

/** The one item that the bytes are. */
export function decodeCbor(data) {
  let at = 0;
  const not = (holds) => {
    if (!holds) throw new RangeError("not deterministic CBOR");
  };
  const take = (length) => {
    not(at + length <= data.length);
    at += length;
    return data.subarray(at - length, at);
  };
  const simple = (info) => {
    if (info < 24) {
      not(info >= 20 && info <= 22);
      return [false, true, null][info - 20];
    }
    const bytes = take(1 << (info - 24));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    not(info !== 24);
    const value = info === 25 ? half(view.getUint16(0)) : info === 26 ? view.getFloat32(0) : view.getFloat64(0);
    not(!Number.isNaN(value) || hex(bytes) === "7e00");
    not(info === 25 || !isHalf(value));
    not(info !== 27 || Math.fround(value) !== value);
    return value;
  };
  const map = (count, depth) => {
    const [found, keys] = [new Map(), []];
    for (let n = 0n; n < count; n += 1n) {
      const start = at;
      const key = item(depth);
      keys.push(hex(data.subarray(start, at)));
      not(n === 0n || keys.at(-2) < keys.at(-1));
      found.set(key, item(depth));
    }
    return found;
  };
  const item = (depth) => {
    not(depth <= MAX_NESTING);
    const head = take(1)[0];
    const [major, info] = [head >> 5, head & 31];
    not(info < 28);
    if (major === 7) return simple(info);
    const value = info < 24 ? BigInt(info) : number(take(1 << (info - 24)));
    not(info < 24 || value >= (info === 24 ? 24n : 1n << (4n << BigInt(info - 24))));
    if (major === 0) return value;
    if (major === 1) return -1n - value;
    if (major === 6) return { tag: value, content: item(depth + 1) };
    not(value <= BigInt(data.length - at));
    if (major === 2) return take(Number(value));
    if (major === 3) return fromUtf8(take(Number(value)));
    if (major === 5) return map(value, depth + 1);
    return Array.from({ length: Number(value) }, () => item(depth + 1));
  };
  const value = item(0);
  not(at === data.length);
  return value;
}

// Leaf data (docs/leaf-format.md).
const KINDS = ["insert", "update", "delete", "truncate", "hash", "redact", "administration", "seal"];
export const isInteger = (value) => typeof value === "bigint";

function isDecimal(parts) {
  if (!Array.isArray(parts) || parts.length !== 2 || !isInteger(parts[0])) return false;
  const [exponent, mantissa] = parts;
  if (isInteger(mantissa)) return mantissa === 0n ? exponent === 0n : mantissa % 10n !== 0n;
  if (![2n, 3n].includes(mantissa?.tag) || !isBytes(mantissa.content)) return false;
  const [digits, negative] = [mantissa.content, mantissa.tag === 3n ? 1n : 0n];
  return digits.length > 8 && digits[0] !== 0 && (number(digits) + negative) % 10n !== 0n;
}

function isArray(parts) {
  if (!Array.isArray(parts) || ![2, 3].includes(parts.length) || !parts.every(Array.isArray)) return false;
  const [sizes, elements, bounds] = parts;
  if (sizes.length === 0 || !sizes.every((size) => isInteger(size) && size >= 0n)) return false;
  if (sizes.reduce((product, size) => product * size, 1n) !== BigInt(elements.length)) return false;
  if (bounds === undefined) return sizes.length > 1 && elements.every(isValue);
  const right = bounds.every((bound) => isInteger(bound) && BigInt.asIntN(32, bound) === bound);
  return right && bounds.length === sizes.length && bounds.some((bound) => bound !== 1n) && elements.every(isValue);
}

/** Whether a value is in the one form that the format has for it. */
function isValue(value) {
  if (Array.isArray(value)) return value.every(isValue);
  if (value instanceof Map) return [...value].every(([name, value]) => isText(name) && value !== null && isValue(value));
  if (value?.tag === 37n) return isBytes(value.content) && value.content.length === 16;
  if (value?.tag === 4n) return isDecimal(value.content);
  if (value?.tag === 40n) return isArray(value.content);
  return value?.tag === undefined;
}

function isContext(context) {
  if (!(context instanceof Map) || context.size === 0) return false;
  const { salt, at, app, xid, user, role, context: said, statement, statement_bytes: bytes, ...others } = Object.fromEntries(context);
  if (Object.keys(others).length > 0 || (salt !== undefined && !isBytes(salt))) return false;
  if (context.size === (salt === undefined ? 0 : 1)) return true;
  const inRange = (value, least, most) => isInteger(value) && value >= least && value < most;
  const isCut = bytes === undefined || (isText(statement) && inRange(bytes, BigInt(new TextEncoder().encode(statement).length) + 1n, 2n ** 64n));
  return inRange(at, -(2n ** 63n), 2n ** 63n) && inRange(xid, 0n, 2n ** 64n) && isText(app) && isText(user) &&
    [role, said, statement].every((text) => text === undefined || isText(text)) && isCut;
}

/** Source, kind, columns (a Map, or the digest of one) and context of leaf data of format 1; null for other data. */
export function decodeLeaf(data) {
  if (data.length > MAX_LEAF_DATA) return null;
  let leaf;
  try {
    leaf = decodeCbor(data);
  } catch {
    return null;
  }
  if (!Array.isArray(leaf) || ![4, 5].includes(leaf.length) || !isValue(leaf)) return null;
  const [format, source, kind, columns, context] = leaf;
  const is = format === 1n && isText(source) && KINDS.includes(kind) && (leaf.length === 4 || isContext(context));
  const held = columns instanceof Map || (isBytes(columns) && columns.length === 32);
  return is && held ? { source, kind, columns, context: context ?? new Map() } : null;
}

/** A value for people: numbers and texts as they are, bytes in hexadecimal digits. */
export function shownValue(value) {
  if (value === null) return "NULL";
  if (typeof value === "string") return printable(value);
  if (isBytes(value)) return `\\x${hex(value)}`;
  if (Array.isArray(value)) return `[${value.map(shownValue).join(", ")}]`;
  if (value instanceof Map) return `{${[...value].map(([name, inner]) => `${name}: ${shownValue(inner)}`).join(", ")}}`;
  if (value?.tag === 37n) return hex(value.content).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  if (value?.tag === 4n) return shownDecimal(...value.content);
  if (value?.tag === 40n) return value.content.map(shownValue).join(" ");
  return String(value);
}

function shownDecimal(exponent, mantissa) {
  const whole = isInteger(mantissa) ? mantissa : mantissa.tag === 2n ? number(mantissa.content) : -1n - number(mantissa.content);
  if (exponent >= 0n) return exponent > 60n ? `${whole}e${exponent}` : `${whole}${whole ? "0".repeat(Number(exponent)) : ""}`;
  if (exponent < -60n) return `${whole}e${exponent}`;
  const [sign, digits] = [whole < 0n ? "-" : "", String(whole < 0n ? -whole : whole).padStart(Number(-exponent) + 1, "0")];
  return `${sign}${digits.slice(0, Number(exponent))}.${digits.slice(Number(exponent))}`;
}
