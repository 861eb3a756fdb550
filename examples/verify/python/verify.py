#!/usr/bin/env python3
"""Checks a proof bundle, an absence proof or a consistency proof (JSON) of merkle_log: docs/proof-format.md.

    verify.py KEY FILE             KEY: the log's verifier key; of several logs, separated by commas
    verify.py --vectors FILE       the vectors of the specification

Standard library only; it shares no code with the project. Witnesses are not looked at.
"""
import base64
import decimal
import hashlib
import json
import re
import sys
import uuid


MAX_SIZE = 2**62 - 1
MAX_LEVELS = 8
MAX_ENTRIES = 10_000
MAX_RANGES = 10_000
MAX_COLUMNS = 1600
KEY_BITS = 64
MAX_SIGNATURES = 100
MAX_LEAF_DATA = 65535
MAX_NESTING = 127
KINDS = ("insert", "update", "delete", "truncate", "hash", "redact", "administration", "seal")
CONTEXT = {"salt", "at", "app", "xid", "user", "role", "context", "statement", "statement_bytes"}


class Refused(Exception):
    """What is claimed is not proven."""


def require(holds, why):
    if not holds:
        raise Refused(why)


# Ed25519 (RFC 8032 §5.1), verification only.
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def add(a, b):
    x, y = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0])
    z, w = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    e, f, g, h = y - x, w - z, w + z, y + x
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(n, point):
    result = (0, 1, 1, 0)
    while n:
        result = add(result, point) if n & 1 else result
        point, n = add(point, point), n >> 1
    return result


def point(encoded):
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    require(y < P and x * x % P == square and (x or not sign), "no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def ed25519_verifies(key, message, signature):
    if len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = multiply(s, BASE), add(point(signature[:32]), multiply(k, point(key)))
    same = (left[0] * right[2] - right[0] * left[2]) % P == 0 == (left[1] * right[2] - right[1] * left[2]) % P
    return s < L and same


# JSON, of which the formats have objects, lists, texts and natural numbers.
def natural(digits):
    require(not digits.startswith("-"), "a negative number")
    return int(digits)


def distinct(members):
    value = dict(members)
    require(len(value) == len(members), "a field is there twice")
    return value


def no_such_value(text):
    raise Refused(f"the format has no {text}")


def parse_json(text):
    return json.loads(text, object_pairs_hook=distinct, parse_int=natural, parse_float=no_such_value, parse_constant=no_such_value)


def is_text(value):
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def listed(value):
    require(isinstance(value, list), "not a list")
    return value


# Base64, numbers, hashes.
def unbase64(text):
    decoded = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    require(isinstance(text, str) and base64.b64encode(decoded).decode() == text, "not base64")
    return decoded


def unhash(text):
    decoded = unbase64(text)
    require(len(decoded) == 32, "a hash has 32 bytes")
    return decoded


def number(text):
    require(isinstance(text, str) and re.fullmatch(r"0|[1-9][0-9]{0,19}", text) is not None, "not a decimal number")
    return int(text)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def node(left, right):
    return sha256(b"\x01", left, right)


# Notes and checkpoints.
def parse_key(text):
    require(text.count("+") >= 2, "not a verifier key")
    name, key_id, key = text.split("+", 2)
    key = unbase64(key)
    require(len(key) == 33 and key[0] == 1 and sha256(name.encode(), b"\n", key)[:4].hex() == key_id, "not an Ed25519 key")
    return name, key_id, key[1:]


def parse_note(note):
    """Text and signatures (name, key id, payload) of a note, unverified."""
    require(is_text(note) and re.search(r"[\x00-\x09\x0b-\x1f]", note) is None, "control characters")
    text, separator, signatures = note.rpartition("\n\n")
    require(separator and signatures.endswith("\n"), "not a signed note")
    lines = signatures[:-1].split("\n")
    require(len(lines) <= MAX_SIGNATURES, "too many signatures")
    found = []
    for line in lines:
        match = re.fullmatch(r"— (\S+) (\S+)", line)
        require(match and "+" not in match[1], "not a signature line")
        blob = unbase64(match[2])
        require(len(blob) > 4, "no signature")
        found.append((match[1], blob[:4].hex(), blob[4:]))
    return text + "\n", found


def checkpoint(note, keys):
    """Origin, size, root and text of a note that a known log has signed."""
    text, signatures = parse_note(note)
    origin, size, root, *extensions = text[:-1].split("\n")
    size, root = number(size), unhash(root)
    require(origin and "" not in extensions and size <= MAX_SIZE, "not a checkpoint")
    require(size > 0 or root == sha256(), "not the root of an empty tree")
    known = [key for key in keys if key[0] == origin]
    require(known, f"no key is known for {origin}")
    verified = 0
    for name, key_id, payload in signatures:
        for known_name, known_id, key in known:
            if (name, key_id) == (known_name, known_id):
                require(ed25519_verifies(key, text.encode(), payload), "a signature is false")
                verified += 1
    require(verified, f"no known key of {origin} has signed")
    return origin, size, root, text


# Proofs (RFC 9162 §2.1.3.2 and §2.1.4.2).
def check_inclusion(leaf_hash, index, size, path, root):
    require(index < size, "the index is beyond the tree")
    at, last, found = index, size - 1, leaf_hash
    for sibling in path:
        require(last > 0, "the path is too long")
        if at & 1 or at == last:
            found = node(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, sibling)
        at, last = at >> 1, last >> 1
    require(last == 0 and found == root, f"entry {index} is not proven")


def check_together(leaves, size, nodes, root):
    """One proof of several leaves, (index, hash) in order: what is not known of a level is the next of the nodes."""
    require(leaves[-1][0] < size, "an index is beyond the tree")
    known, width, rest = dict(leaves), size, iter(nodes)
    while width > 1:
        above = {}
        for at, found in known.items():
            sibling = at ^ 1
            if sibling >= width:
                above[at >> 1] = found
            elif sibling not in known or sibling > at:
                other = known[sibling] if sibling in known else next(rest, None)
                require(other is not None, "a node is missing")
                above[at >> 1] = node(found, other) if at < sibling else node(other, found)
        known, width = above, width + 1 >> 1
    require(next(rest, None) is None, "a node is not needed")
    require(known[0] == root, "the entries are not proven together")


def check_consistency(old_size, old_root, new_size, new_root, path):
    require(old_size <= new_size, "the sizes are reversed")
    if old_size in (0, new_size):
        expected = sha256() if old_size == 0 else new_root
        require(not path and old_root == expected, "not consistent")
        return
    nodes = list(path) if old_size & (old_size - 1) else [old_root, *path]
    require(nodes, "the path is too short")
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = nodes[0]
    for sibling in nodes[1:]:
        require(last > 0, "the path is too long")
        if at & 1 or at == last:
            old, new = node(sibling, old), node(sibling, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node(new, sibling)
        at, last = at >> 1, last >> 1
    require(last == 0 and old == old_root and new == new_root, "not consistent")


# Leaf data (docs/leaf-format.md): CBOR, as far as columns are looked at.
def cbor(data, at=0, depth=0):
    """The value at `at` in the one form that it has, and where it ends."""
    require(depth <= MAX_NESTING, "not leaf data")
    major, info, at = data[at] >> 5, data[at] & 31, at + 1
    width = {24: 1, 25: 2, 26: 4, 27: 8}.get(info, 0)
    require(info <= 27 and at + width <= len(data), "not leaf data")
    value, at = int.from_bytes(data[at:at + width], "big") if width else info, at + width
    if major == 7:
        require(width > 1 or info in (20, 21, 22), "not leaf data")
        return ("simple", value), at
    require(not width or value >= (24 if width == 1 else 1 << 4 * width), "not the shortest form")
    if major in (0, 1):
        return (value if major == 0 else -1 - value), at
    if major == 6:
        content, at = cbor(data, at, depth + 1)
        return ("tag", value, content), at
    require(value <= len(data) - at, "not leaf data")
    if major in (2, 3):
        content = data[at:at + value]
        return (content.decode() if major == 3 else content), at + value
    items, starts = [], []
    for _ in range(value * (major - 3)):
        starts.append(at)
        item, at = cbor(data, at, depth + 1)
        items.append(item)
    if major == 4:
        return items, at
    names = [data[start:end] for start, end in zip(starts[::2], starts[1::2])]
    require(all(a < b for a, b in zip(names, names[1:])) and all(map(is_text, items[::2])), "not the one form of a map")
    return dict(zip(items[::2], items[1::2])), at


def row(data):
    """Source, kind and columns of leaf data of format 1; None for other data."""
    try:
        require(len(data) <= MAX_LEAF_DATA, "too long")
        value, end = cbor(data)
    except (Refused, IndexError, ValueError):
        return None
    if end != len(data) or not isinstance(value, list) or len(value) not in (4, 5) or value[0] != 1:
        return None
    source, kind, columns = value[1:4]
    held = isinstance(columns, dict) or (isinstance(columns, bytes) and len(columns) == 32)
    context = len(value) == 4 or (isinstance(value[4], dict) and 0 < len(value[4]) and set(value[4]) <= CONTEXT)
    return (source, kind, columns) if is_text(source) and kind in KINDS and held and context else None


def check_label(entry, found):
    if "source" not in entry or found is None:
        return
    source, _, columns = found
    require(source == entry["source"], "the leaf data are of another source")
    if isinstance(columns, dict):
        for name, text in entry["key"]:
            require(name in columns, "the leaf data have no such key column")
            integers = isinstance(columns[name], int) and re.fullmatch(r"[+-]?[0-9]+", text)
            require(not integers or text == str(columns[name]), "the leaf data have another key")


# Bundles.
def fields(value, required, optional=()):
    require(isinstance(value, dict) and set(required) <= set(value) <= set(required) | set(optional), "not the fields of the format")


def check_label_form(entry):
    require(("source" in entry) == ("key" in entry), "source or key alone")
    pairs = listed(entry.get("key", []))
    require(all(isinstance(pair, list) and len(pair) == 2 and all(map(is_text, pair)) for pair in pairs), "not a key")
    require(is_text(entry.get("source", "")), "source is no text")
    require(len({name for name, _ in pairs}) == len(pairs), "a key column twice")


def read_entry(entry, path):
    """Index, leaf hash and leaf data, of which nothing is proven yet."""
    fields(entry, ["index", *path], ["leaf_data", "leaf_hash", "source", "key"])
    require(("leaf_data" in entry) != ("leaf_hash" in entry), "not one of leaf_data and leaf_hash")
    check_label_form(entry)
    data = unbase64(entry["leaf_data"]) if "leaf_data" in entry else None
    leaf_hash = unhash(entry["leaf_hash"]) if data is None else sha256(b"\x00", data)
    index = number(entry["index"])
    require(index < MAX_SIZE, "the index is beyond the largest tree")
    return index, leaf_hash, data


def check_paths(bundle, entries, nodes, size, root):
    """A path for each entry: version 1."""
    places = [place for entry in bundle["entries"] for place in listed(entry["path"])]
    require(all(type(place) is int for place in places), "a place is no number")
    require(list(dict.fromkeys(places)) == list(range(len(nodes))) and len(set(nodes)) == len(nodes), "not the nodes of the paths")
    for entry, (index, leaf_hash, _) in zip(bundle["entries"], entries):
        check_inclusion(leaf_hash, index, size, [nodes[place] for place in entry["path"]], root)


def check_hub(entries, text):
    require(len(entries) == 1 and entries[0][2] is not None, "the hub's entry is not there")
    found = row(entries[0][2])
    held = entries[0][2].decode() if found is None else None
    if found is not None and found[1] in ("insert", "update") and isinstance(found[2], dict):
        held = found[2].get("checkpoint")
    require(isinstance(held, str), "the hub's entry holds no checkpoint")
    require(held == text or parse_note(held)[0] == text, "the hub holds another checkpoint")


def verify_bundle(bundle, keys, level=1):
    """What is proven: origin, size, and of each entry index, leaf hash, leaf data if they are there."""
    fields(bundle, ["format", "checkpoint", "nodes", "entries"], ["hub"])
    together = bundle["format"] == "merkle_log/proof-bundle@v2"
    require(together or bundle["format"] == "merkle_log/proof-bundle@v1", "another format")
    require(level <= MAX_LEVELS, "too many bundles are nested")
    origin, size, root, text = checkpoint(bundle["checkpoint"], keys)
    nodes = [unhash(each) for each in listed(bundle["nodes"])]
    require(together < len(listed(bundle["entries"])) <= MAX_ENTRIES, "too few entries, or too many")
    proven = [read_entry(entry, [] if together else ["path"]) for entry in bundle["entries"]]
    require(all(a[0] < b[0] for a, b in zip(proven, proven[1:])), "entries out of order")
    if together:
        check_together([(index, leaf_hash) for index, leaf_hash, _ in proven], size, nodes, root)
    else:
        check_paths(bundle, proven, nodes, size, root)
    for entry, (_, _, data) in zip(bundle["entries"], proven):
        check_label(entry, None if data is None else row(data))
    if "hub" in bundle:
        *_, entries = verify_bundle(bundle["hub"], keys, level + 1)
        check_hub(entries, text)
    return origin, size, root, proven


def verify_consistency(proof, keys):
    fields(proof, ["format", "old", "new", "path"])
    require(proof["format"] == "merkle_log/consistency@v1", "another format")
    old, new = checkpoint(proof["old"], keys), checkpoint(proof["new"], keys)
    require(old[0] == new[0], "checkpoints of two logs")
    check_consistency(old[1], old[2], new[1], new[2], [unhash(each) for each in listed(proof["path"])])
    return new[0], old[1], new[1]


# Absence proofs: which entries a key has in sealed ranges, and that it has no others.
SEAL = {"index", "from", "to", "root_hash", "keys", "index_root"}


def eight(value):
    return value.to_bytes(8, "big")


def key_hash(root, source, key):
    """Where a key stands in the index of a range that ends with this root of the log."""
    texts = [text.encode() for text in (source, *key)]
    return sha256(b"\x10", root, *(part for text in texts for part in (eight(len(text)), text)))


def bit_of(hashed, place):
    return hashed[place // 8] >> 7 - place % 8 & 1


def with_bits(hashed, end, commitment):
    """The commitment to the first `end` bits of a hash, of which the given one is what follows them."""
    for place in reversed(range(end)):
        commitment = sha256(bytes([0x20 + bit_of(hashed, place)]), commitment)
    return commitment


def neighbour(shown, hashed, bit):
    fields(shown, ["shared", "rest"])
    shared = shown["shared"]
    require(type(shared) is int and shared < KEY_BITS and bit_of(hashed, shared) != bit, "a neighbour is on the wrong side")
    return with_bits(hashed, shared, sha256(bytes([0x20 + bit]), unhash(shown["rest"])))


def read_seal(data, index):
    """From, to, root of the log, number of keys and root of the index."""
    found = row(data)
    require(found is not None and found[1] == "seal" and isinstance(found[2], dict) and set(found[2]) == SEAL, "not a seal")
    columns = found[2]
    require(columns["index"] == "merkle_log/key-index@v1", "an index of another format")
    bounds = [columns[name] for name in ("from", "to", "keys")]
    require(all(type(n) is int and 0 <= n <= MAX_SIZE for n in bounds), "not the numbers of a seal")
    hashes = [columns[name] for name in ("root_hash", "index_root")]
    require(all(type(h) is bytes and len(h) == 32 for h in hashes), "not the hashes of a seal")
    (start, end, keys), (root, index_root) = bounds, hashes
    require(1 <= keys <= end - start and end <= index, "not the range of a seal")
    return start, end, root, keys, index_root


def check_range(shown, seal, source, key, entries):
    """That these are all entries of the key in a sealed range."""
    start, end, root, keys, index_root = seal
    hashed, position = key_hash(root, source, key), number(shown["position"])
    entries = [index for index in entries if start <= index < end]
    if "blind" in shown:
        require("before" not in shown and "after" not in shown and entries, "a key without entries, or with neighbours")
        whole = sha256(b"\x11", unhash(shown["blind"]), hashed, *map(eight, entries))
        leaves = [(position, with_bits(hashed, KEY_BITS, whole))]
    else:
        require(not entries, "a key with entries that is not shown")
        require(("before" in shown) == (position > 0) and ("after" in shown) == (position < keys), "not the neighbours of the position")
        leaves = [(position - 1, neighbour(shown["before"], hashed, 0))] if "before" in shown else []
        leaves += [(position, neighbour(shown["after"], hashed, 1))] if "after" in shown else []
        require(position <= keys, "the position is beyond the index")
    leaves = [(place, sha256(b"\x00", commitment)) for place, commitment in leaves]
    check_together(leaves, keys, [unhash(each) for each in listed(shown["nodes"])], index_root)


def verify_absence(proof, keys):
    """What is proven: origin, size, root, the entries of the key, and source, key and the range in which they are all."""
    fields(proof, ["format", "checkpoint", "source", "key", "ranges", "entries", "nodes"])
    require(proof["format"] == "merkle_log/absence-proof@v1", "another format")
    origin, size, root, _ = checkpoint(proof["checkpoint"], keys)
    source, key, ranges = proof["source"], listed(proof["key"]), listed(proof["ranges"])
    require(is_text(source) and source and 0 < len(key) <= MAX_COLUMNS and all(map(is_text, key)), "not a source and a key")
    require(0 < len(ranges) <= MAX_RANGES and len(listed(proof["entries"])) <= MAX_ENTRIES, "too few ranges, or too many entries")
    for entry in proof["entries"]:
        require("source" not in entry and "key" not in entry, "not the fields of an entry")
    entries = [read_entry(entry, []) for entry in proof["entries"]]
    for each in ranges:
        fields(each, ["seal", "leaf_data", "position", "nodes"], ["blind", "before", "after"])
        require("blind" in each or "before" in each or "after" in each, "neither the key nor neighbours")
    seals = [(number(each["seal"]), unbase64(each["leaf_data"])) for each in ranges]
    leaves = sorted([(index, sha256(b"\x00", data)) for index, data in seals] + [entry[:2] for entry in entries])
    for ordered in (leaves, seals, entries):
        require(all(a[0] < b[0] for a, b in zip(ordered, ordered[1:])), "entries or seals out of order, or twice")
    check_together(leaves, size, [unhash(each) for each in listed(proof["nodes"])], root)
    read = [read_seal(data, index) for index, data in seals]
    require(all(a[1] == b[0] for a, b in zip(read, read[1:])), "ranges that are not one behind the other")
    indexes = [index for index, _, _ in entries]
    require(all(read[0][0] <= index < read[-1][1] for index in indexes), "an entry outside of the ranges")
    for each, seal in zip(ranges, read):
        check_range(each, seal, source, key, indexes)
    for _, _, data in entries:
        found = None if data is None else row(data)
        require(found is None or found[0] == source, "the leaf data are of another source")
    return origin, size, root, entries, source, key, read[0][0], read[-1][1]


def verify(text, keys):
    try:
        document = parse_json(text.decode() if isinstance(text, bytes) else text)
        fields_of = document if isinstance(document, dict) else {}
        kind = verify_consistency if "old" in fields_of else verify_absence if "ranges" in fields_of else verify_bundle
        return kind(document, keys)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Refused(f"malformed: {error}") from error


def check_vectors(path):
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)
    passed = skipped = 0
    for group, good in (("bundles", 1), ("bad_bundles", 0), ("consistency", 1), ("bad_consistency", 0),
                        ("absence", 1), ("bad_absence", 0)):
        for vector in vectors[group]:
            if "json" not in vector or ("witness " in vector["policy"] and not good):
                skipped += 1
                continue
            keys = [parse_key(line.split()[1]) for line in vector["policy"].splitlines() if line.startswith("log ")]
            try:
                found = verify(vector["json"], keys)
            except Refused:
                found = None
            assert (found is not None) == bool(good), vector["name"]
            if group == "bundles":
                expected = vector["proven"]
                assert (found[0], str(found[1]), found[2].hex()) == (expected["origin"], expected["size"], expected["root"])
                assert [(str(i), h.hex()) for i, h, _ in found[3]] == [(e["index"], e["leaf_hash"]) for e in expected["entries"]]
            if group == "absence":
                expected, (origin, size, root, entries, source, key, start, end) = vector["proven"], found
                assert (origin, str(size), root.hex(), source, key) == tuple(expected[n] for n in ("origin", "size", "root", "source", "key"))
                assert (str(start), str(end), [str(i) for i, *_ in entries]) == (expected["from"], expected["to"], expected["indexes"])
            passed += 1
    print(f"python: {passed} vectors passed, {skipped} are about CBOR or witnesses")
    return passed > 0


def shown(value):
    """A value of a row for people: numbers and uuids as text."""
    match value:
        case list():
            return [shown(each) for each in value]
        case dict():
            return {name: shown(each) for name, each in value.items()}
        case ("tag", 4, [int(exponent), int(mantissa)]):
            return str(decimal.Decimal((mantissa < 0, tuple(map(int, str(abs(mantissa)))), exponent)))
        case ("tag", 37, bytes(octets)) if len(octets) == 16:
            return str(uuid.UUID(bytes=octets))
    return value


def main(first, path):
    if first == "--vectors":
        return 0 if check_vectors(path) else 1
    try:
        with open(path, "rb") as file:
            found = verify(file.read(), [parse_key(key) for key in first.split(",")])
    except Refused as error:
        print(f"NOT PROVEN: {error}")
        return 1
    print("proven:", *found[:2])
    if len(found) > 4:
        print("all", len(found[3]), "entries of", found[4], *found[5], "between", *found[6:])
    for index, leaf_hash, data in found[3] if len(found) > 3 else []:
        print("entry", index, leaf_hash.hex(), shown(row(data)) if data is not None else "withheld")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else __doc__)
