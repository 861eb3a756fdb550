#!/usr/bin/env python3
"""Checks docs/leaf-format-vectors.json against docs/leaf-format.md.

An implementation of the specification that shares no code with the project: standard library only.
Prints how many vectors passed, and fails if any did not or if there were none.
"""
import hashlib
import json
import math
import pathlib
import struct
import sys
from decimal import Decimal

MAX_LEAF_DATA = 65_535


def head(major, n):
    for bits, code, form in ((8, 24, ">B"), (16, 25, ">H"), (32, 26, ">I"), (64, 27, ">Q")):
        if n < 24:
            return bytes([major << 5 | n])
        if n < 1 << bits:
            return bytes([major << 5 | code]) + struct.pack(form, n)
    raise ValueError(f"{n} is beyond 64 bits")


def integer(n):
    return head(0, n) if n >= 0 else head(1, -1 - n)


def text(s):
    return head(3, len(s.encode())) + s.encode()


def byte_string(b):
    return head(2, len(b)) + b


def tag(number, content):
    return head(6, number) + content


def array(items):
    return head(4, len(items)) + b"".join(items)


def float_(f):
    if math.isnan(f):
        return b"\xf9\x7e\x00"
    for form, lead in ((">e", 0xF9), (">f", 0xFA), (">d", 0xFB)):
        try:
            packed = struct.pack(form, f)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == f:
            return bytes([lead]) + packed


def decimal(s):
    sign, digits, exponent = Decimal(s).as_tuple()
    mantissa = int("".join(map(str, digits)))
    if mantissa == 0:
        exponent = 0
    while mantissa and mantissa % 10 == 0:
        mantissa, exponent = mantissa // 10, exponent + 1
    mantissa = -mantissa if sign else mantissa
    rest = -1 - mantissa if mantissa < 0 else mantissa
    if rest < 1 << 64:
        number = integer(mantissa)
    else:
        number = tag(3 if mantissa < 0 else 2, byte_string(rest.to_bytes((rest.bit_length() + 7) // 8, "big")))
    return tag(4, array([integer(exponent), number]))


def mapping(pairs):
    items = sorted((text(name), value(v)) for name, v in pairs if v is not None)
    return head(5, len(items)) + b"".join(k + v for k, v in items)


def pg_array(a):
    sizes, bounds, elements = a["sizes"], a["lower_bounds"], [value(e) for e in a["elements"]]
    if not sizes or (len(sizes) == 1 and bounds == [1]):
        return array(elements)
    parts = [array([integer(n) for n in sizes]), array(elements)]
    if any(b != 1 for b in bounds):
        parts.append(array([integer(b) for b in bounds]))
    return tag(40, array(parts))


def value(v):
    if v is None:
        return b"\xf6"
    (kind, content), = v.items()
    return {
        "bool": lambda: b"\xf5" if content else b"\xf4",
        "int": lambda: integer(int(content)),
        "float": lambda: float_(float(content)),
        "text": lambda: text(content),
        "repeat": lambda: text(content[0] * content[1]),
        "bytes": lambda: byte_string(bytes.fromhex(content)),
        "uuid": lambda: tag(37, byte_string(bytes.fromhex(content))),
        "decimal": lambda: decimal(content),
        "list": lambda: array([value(e) for e in content]),
        "array": lambda: pg_array(content),
        "composite": lambda: mapping(content),
    }[kind]()


def context_map(context):
    encoded = {
        "at": lambda s: integer(int(s)),
        "app": text,
        "xid": lambda s: integer(int(s)),
        "salt": lambda s: byte_string(bytes.fromhex(s)),
        "user": text,
        "role": text,
        "context": text,
        "statement": text,
        "statement_bytes": lambda s: integer(int(s)),
    }
    items = sorted((text(name), encoded[name](v)) for name, v in context.items())
    return head(5, len(items)) + b"".join(k + v for k, v in items)


def leaf_data(leaf):
    context = context_map(leaf["context"]) if leaf.get("context") else b""
    start = head(4, 5 if context else 4) + integer(1) + text(leaf["source"]) + text(leaf["kind"])
    columns = mapping(leaf["columns"])
    if len(start + columns + context) > MAX_LEAF_DATA:
        columns = byte_string(hashlib.sha256(columns).digest())
    return start + columns + context


def main():
    path = pathlib.Path(__file__).with_name("leaf-format-vectors.json")
    vectors = json.loads(path.read_text(encoding="utf-8"))
    results = [(v["name"], value(v["value"]).hex() == v["cbor"]) for v in vectors["values"]]
    for leaf in vectors["leaves"]:
        data = leaf_data(leaf)
        digest = hashlib.sha256(b"\x00" + data).hexdigest()
        results.append((leaf["name"], (data.hex(), digest) == (leaf["leaf_data"], leaf["leaf_hash"])))
    failed = [name for name, ok in results if not ok]
    for name in failed:
        print("FAILED", name)
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed or not results else 0)


if __name__ == "__main__":
    main()
