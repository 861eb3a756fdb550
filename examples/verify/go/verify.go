// The proofs themselves: notes, checkpoints, paths, bundles (docs/proof-format.md).

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxSize       = 1<<62 - 1
	maxLevels     = 8
	maxEntries    = 10_000
	maxSignatures = 100
	maxLeafData   = 65535
	maxNesting    = 127
)

// refused is what a check panics with: what is claimed is not proven.
type refused string

// orRefused turns a refusal into an error. Any other panic is a fault of this program, and goes on as one.
func orRefused(err *error) {
	switch why := recover().(type) {
	case nil:
	case refused:
		*err = errors.New(string(why))
	default:
		panic(why)
	}
}

func require(holds bool, why string) {
	if !holds {
		panic(refused(why))
	}
}

// Base64, numbers, hashes.

type hash [32]byte

func unbase64(text string) []byte {
	decoded, err := base64.StdEncoding.Strict().DecodeString(text)
	require(err == nil && base64.StdEncoding.EncodeToString(decoded) == text, "not base64")
	return decoded
}

func unhash(text string) (h hash) {
	decoded := unbase64(text)
	require(len(decoded) == 32, "a hash has 32 bytes")
	copy(h[:], decoded)
	return h
}

var decimal = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	require(err == nil && n <= maxSize && decimal.MatchString(text), "not a decimal number")
	return n
}

func leaf(data []byte) hash { return sha256.Sum256(append([]byte{0}, data...)) }
func node(left, right hash) hash {
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}
func oneOf(first, second bool) bool { return first != second }

// Notes and checkpoints.

type key struct {
	name   string
	id     []byte
	public ed25519.PublicKey
}

func parseKey(text string) key {
	parts := strings.SplitN(text, "+", 3)
	require(len(parts) == 3, "not a key")
	encoded := unbase64(parts[2])
	id := sha256.Sum256(append([]byte(parts[0]+"\n"), encoded...))
	require(hex.EncodeToString(id[:4]) == parts[1] && len(encoded) == 33 && encoded[0] == 1, "not an Ed25519 key")
	return key{parts[0], id[:4], ed25519.PublicKey(encoded[1:])}
}

type checkpoint struct {
	origin string
	size   uint64
	root   hash
	text   string
}

var (
	control       = regexp.MustCompile(`[\x00-\x09\x0b-\x1f]`)
	signed        = regexp.MustCompile(`^[+-]?[0-9]+$`)
	signatureLine = regexp.MustCompile(`^— ([^\s+]+) (\S+)$`)
)

type signature struct {
	name        string
	id, payload []byte
}

// parseNote is the text of a note and its signatures, unverified.
func parseNote(note string) (text string, signatures []signature) {
	end := strings.LastIndex(note, "\n\n")
	require(end >= 0 && strings.HasSuffix(note, "\n") && !control.MatchString(note) && utf8.ValidString(note), "not a signed note")
	lines := strings.Split(strings.TrimSuffix(note[end+2:], "\n"), "\n")
	require(len(note) > end+2 && len(lines) <= maxSignatures, "not 1 to 100 signatures")
	for _, line := range lines {
		match := signatureLine.FindStringSubmatch(line)
		require(match != nil && strings.IndexFunc(match[1], unicode.IsSpace) < 0, "not a signature line")
		blob := unbase64(match[2])
		require(len(blob) > 4, "no signature")
		signatures = append(signatures, signature{match[1], blob[:4], blob[4:]})
	}
	return note[:end+1], signatures
}

// openCheckpoint is the checkpoint of a note that a known log has signed.
func openCheckpoint(note string, keys []key) checkpoint {
	text, signatures := parseNote(note)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	require(len(lines) >= 3, "not a checkpoint")
	for _, line := range lines {
		require(line != "", "not a checkpoint")
	}
	found := checkpoint{lines[0], number(lines[1]), unhash(lines[2]), text}
	require(found.size > 0 || found.root == sha256.Sum256(nil), "not the root of an empty tree")
	known, verified := 0, 0
	for _, k := range keys {
		if k.name != found.origin {
			continue
		}
		known++
		for _, s := range signatures {
			if k.name == s.name && bytes.Equal(k.id, s.id) {
				require(ed25519.Verify(k.public, []byte(text), s.payload), "a signature is false")
				verified++
			}
		}
	}
	require(known > 0, "no key is known for "+found.origin)
	require(verified > 0, "no known key of "+found.origin+" has signed")
	return found
}

// Proofs (RFC 9162 §2.1.3.2 and §2.1.4.2).

func checkInclusion(found hash, index, size uint64, path []hash, root hash) {
	require(index < size, "the index is beyond the tree")
	at, last := index, size-1
	for _, sibling := range path {
		require(last > 0, "the path is too long")
		if at&1 == 1 || at == last {
			found = node(sibling, found)
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			found = node(found, sibling)
		}
		at, last = at>>1, last>>1
	}
	require(last == 0 && found == root, fmt.Sprint("an entry is not proven: ", index))
}

type leafAt struct {
	index uint64
	hash  hash
}

// checkTogether checks one proof of several leaves in order: what is not known of a level is the next of the nodes.
func checkTogether(known []leafAt, size uint64, nodes []hash, root hash) {
	require(known[len(known)-1].index < size, "an index is beyond the tree")
	for width := size; width > 1; width = (width + 1) / 2 {
		var above []leafAt
		next := func() hash {
			require(len(nodes) > 0, "a node is missing")
			first := nodes[0]
			nodes = nodes[1:]
			return first
		}
		for i := 0; i < len(known); i++ {
			at, found := known[i].index, known[i].hash
			switch {
			case at&1 == 1:
				found = node(next(), found)
			case at+1 == width:
			case i+1 < len(known) && known[i+1].index == at+1:
				i++
				found = node(found, known[i].hash)
			default:
				found = node(found, next())
			}
			above = append(above, leafAt{at / 2, found})
		}
		known = above
	}
	require(len(nodes) == 0, "a node is not needed")
	require(known[0].hash == root, "the entries are not proven together")
}

func checkConsistency(from, to checkpoint, path []hash) {
	require(from.size <= to.size, "the sizes are reversed")
	if from.size == 0 || from.size == to.size {
		expected := to.root
		if from.size == 0 {
			expected = sha256.Sum256(nil)
		}
		require(len(path) == 0 && from.root == expected, "not consistent")
		return
	}
	if from.size&(from.size-1) == 0 {
		path = append([]hash{from.root}, path...)
	}
	require(len(path) > 0, "the path is too short")
	at, last := from.size-1, to.size-1
	for at&1 == 1 {
		at, last = at>>1, last>>1
	}
	before, after := path[0], path[0]
	for _, sibling := range path[1:] {
		require(last > 0, "the path is too long")
		if at&1 == 1 || at == last {
			before, after = node(sibling, before), node(sibling, after)
			for at&1 == 0 && at != 0 {
				at, last = at>>1, last>>1
			}
		} else {
			after = node(after, sibling)
		}
		at, last = at>>1, last>>1
	}
	require(last == 0 && before == from.root && after == to.root, "not consistent")
}

// Bundles.

type provenEntry struct {
	index    uint64
	leafHash hash
	data     []byte
}

func hashes(values any) (found []hash) {
	for _, each := range list(values) {
		found = append(found, unhash(text(each)))
	}
	return found
}

// entry is one whose form is right.
type entry struct {
	provenEntry
	path   []int
	source string
	key    [][2]string // nil where there is no label
}

func place(value any) int {
	digits, is := value.(json.Number)
	require(is, "a place is no number")
	n := number(digits.String())
	require(n < 1<<31, "a path has a node that is not there")
	return int(n)
}

func parseKeyColumns(value any) [][2]string {
	pairs, names := [][2]string{}, map[string]bool{}
	for _, each := range list(value) {
		pair := list(each)
		require(len(pair) == 2, "not a key")
		name := text(pair[0])
		require(!names[name], "a key column twice")
		names[name] = true
		pairs = append(pairs, [2]string{name, text(pair[1])})
	}
	return pairs
}

// parseEntry reads an entry, which has a path in version 1 of the format.
func parseEntry(value any, required string) (e entry) {
	o := fields(value, required, "leaf_data leaf_hash source key")
	require(oneOf(o.has("leaf_data"), o.has("leaf_hash")), "not one of leaf_data and leaf_hash")
	require(o.has("source") == o.has("key"), "source or key alone")
	e.index = number(text(o["index"]))
	require(e.index < maxSize, "the index is beyond the largest tree")
	if o.has("path") {
		for _, each := range list(o["path"]) {
			e.path = append(e.path, place(each))
		}
	}
	if o.has("leaf_data") {
		e.data = append([]byte{}, unbase64(text(o["leaf_data"]))...)
		e.leafHash = leaf(e.data)
	} else {
		e.leafHash = unhash(text(o["leaf_hash"]))
	}
	if o.has("source") {
		e.source, e.key = text(o["source"]), parseKeyColumns(o["key"])
	}
	return e
}

func checkNodes(nodes []hash, entries []entry) {
	next, distinct := 0, map[hash]bool{}
	for _, e := range entries {
		for _, place := range e.path {
			require(place <= next && place < len(nodes), "not the nodes of the paths")
			if place == next {
				require(!distinct[nodes[place]], "a node twice")
				distinct[nodes[place]] = true
				next++
			}
		}
	}
	require(next == len(nodes), "not the nodes of the paths")
}

func (e entry) checkLabel(found *row) {
	if e.key == nil || found == nil {
		return
	}
	require(found.source == e.source, "the leaf data are of another source")
	for _, pair := range e.key {
		if found.columns == nil {
			break
		}
		value, is := found.columns[pair[0]]
		require(is, "the leaf data have no such key column")
		want, integer := value.(*big.Int)
		require(!integer || !signed.MatchString(pair[1]) || pair[1] == want.String(), "the leaf data have another key")
	}
}

// checkPath checks the path of an entry: version 1.
func (e entry) checkPath(head checkpoint, nodes []hash) {
	var path []hash
	for _, place := range e.path {
		path = append(path, nodes[place])
	}
	checkInclusion(e.leafHash, e.index, head.size, path, head.root)
}

func verifyBundle(value any, keys []key, level int) (checkpoint, []provenEntry) {
	b := fields(value, "format checkpoint nodes entries", "hub")
	together := text(b["format"]) == "merkle_log/proof-bundle@v2"
	require(together || text(b["format"]) == "merkle_log/proof-bundle@v1", "another format")
	require(level <= maxLevels, "too many bundles are nested")
	head, nodes := openCheckpoint(text(b["checkpoint"]), keys), hashes(b["nodes"])
	required, fewest := "index path", 1
	if together {
		required, fewest = "index", 2
	}
	var entries []entry
	var leaves []leafAt
	var proven []provenEntry
	for i, each := range list(b["entries"]) {
		e := parseEntry(each, required)
		require(i == 0 || entries[i-1].index < e.index, "entries out of order")
		entries, proven = append(entries, e), append(proven, e.provenEntry)
		leaves = append(leaves, leafAt{e.index, e.leafHash})
	}
	require(len(entries) >= fewest && len(entries) <= maxEntries, "too few entries, or too many")
	if together {
		checkTogether(leaves, head.size, nodes, head.root)
	} else {
		checkNodes(nodes, entries)
	}
	for _, e := range entries {
		if !together {
			e.checkPath(head, nodes)
		}
		if e.data != nil {
			e.checkLabel(parseRow(e.data))
		}
	}
	if b.has("hub") {
		_, held := verifyBundle(b["hub"], keys, level+1)
		require(len(held) == 1 && held[0].data != nil, "the hub's entry is not there")
		checkHub(held[0].data, head.text)
	}
	return head, proven
}

// checkHub requires that the hub's entry holds the checkpoint with this text, with its signatures or without.
func checkHub(data []byte, text string) {
	held := string(data)
	if found := parseRow(data); found != nil {
		require(found.kind == "insert" || found.kind == "update", "the hub's entry holds no checkpoint")
		column, is := found.columns["checkpoint"].(string)
		require(is, "the hub's entry holds no checkpoint")
		held = column
	}
	if held != text {
		held, _ = parseNote(held)
	}
	require(held == text, "the hub holds another checkpoint")
}

func verifyConsistency(value any, keys []key) checkpoint {
	c := fields(value, "format old new path", "")
	require(text(c["format"]) == "merkle_log/consistency@v1", "another format")
	from, to := openCheckpoint(text(c["old"]), keys), openCheckpoint(text(c["new"]), keys)
	require(from.origin == to.origin, "checkpoints of two logs")
	checkConsistency(from, to, hashes(c["path"]))
	return to
}

func verify(document string, keys []key) (head checkpoint, entries []provenEntry, err error) {
	defer orRefused(&err)
	value := parseJSON(document)
	if o, is := value.(object); is && o.has("old") {
		return verifyConsistency(value, keys), nil, nil
	}
	head, entries = verifyBundle(value, keys, 1)
	return head, entries, nil
}
