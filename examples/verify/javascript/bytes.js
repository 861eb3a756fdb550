// Bytes and texts: one strict form of each encoding.

export const concat = (...parts) => {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
  return all;
};
export const utf8 = (text) => new TextEncoder().encode(text);
export const fromUtf8 = (bytes) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
export const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (byte) => parseInt(byte, 16));
export const equal = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);
export const number = (bytes) => bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
export const bytesOf64 = (value) => unhex(value.toString(16).padStart(16, "0"));
export const isText = (value) => typeof value === "string" && !/\p{Surrogate}/u.test(value);
const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

/** The bytes of base64 in its one form, or null. */
export function unbase64(text) {
  if (typeof text !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4) return null;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return base64(bytes) === text ? bytes : null;
}

/** The value of a decimal number without sign or leading zeros, or null. */
export const decimal = (text) => (isText(text) && /^(0|[1-9][0-9]{0,19})$/.test(text) && BigInt(text) < 2n ** 64n ? BigInt(text) : null);
export const isBytes = (value) => value instanceof Uint8Array;

/** A text from outside, without characters that would let it seem to be another one. */
export const printable = (text) => text.replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
