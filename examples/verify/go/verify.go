// Checks a proof bundle or a consistency proof (JSON) of merkle_log: docs/proof-format.md.
//
//	go run verify.go KEY FILE             KEY: the log's verifier key; of several logs, separated by commas
//	go run verify.go --vectors FILE       the vectors of the specification
//
// The standard library only; it shares no code with the project. Witnesses are not looked at.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// refused is what a check panics with: what is claimed is not proven.
type refused string

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
	require(err == nil && n < 1<<62 && decimal.MatchString(text), "not a decimal number")
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

// openCheckpoint is the checkpoint of a note that a known log has signed.
func openCheckpoint(note string, keys []key) checkpoint {
	end := strings.LastIndex(note, "\n\n")
	require(end >= 0 && strings.HasSuffix(note, "\n") && !control.MatchString(note) && utf8.ValidString(note), "not a signed note")
	text, signatures := note[:end+1], strings.TrimSuffix(note[end+2:], "\n")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	require(len(lines) >= 3, "not a checkpoint")
	for _, line := range lines {
		require(line != "", "not a checkpoint")
	}
	known, verified := 0, 0
	for _, line := range strings.Split(signatures, "\n") {
		match := signatureLine.FindStringSubmatch(line)
		require(match != nil, "not a signature line")
		blob := unbase64(match[2])
		require(len(blob) > 4, "no signature")
		for _, k := range keys {
			if k.name != lines[0] {
				continue
			}
			known++
			if k.name == match[1] && bytes.Equal(k.id, blob[:4]) {
				require(ed25519.Verify(k.public, []byte(text), blob[4:]), "a signature is false")
				verified++
			}
		}
	}
	require(known > 0, "no key is known for "+lines[0])
	require(verified > 0, "no known key of "+lines[0]+" has signed")
	return checkpoint{lines[0], number(lines[1]), unhash(lines[2]), text}
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

// Leaf data (docs/leaf-format.md): CBOR, as far as columns are looked at. Integers are int64 where they fit,
// texts strings, arrays []any, maps map[any]any.

type other struct{ major, value, content any }

func cbor(data []byte, at int) (any, int) {
	require(at < len(data) && data[at]&31 <= 27, "not leaf data")
	major, value := data[at]>>5, uint64(data[at]&31)
	at++
	if value >= 24 {
		width := 1 << (value - 24)
		require(at+width <= len(data), "not leaf data")
		var wide [8]byte
		copy(wide[8-width:], data[at:at+width])
		value, at = binary.BigEndian.Uint64(wide[:]), at+width
	}
	switch {
	case major == 0 && value < 1<<63:
		return int64(value), at
	case major == 1 && value < 1<<63:
		return -1 - int64(value), at
	case major == 2 || major == 3:
		require(value <= uint64(len(data)-at), "not leaf data")
		end := at + int(value)
		if major == 3 {
			return string(data[at:end]), end
		}
		return other{major, string(data[at:end]), nil}, end
	case major == 4:
		items := []any{}
		for n := uint64(0); n < value; n++ {
			var item any
			item, at = cbor(data, at)
			items = append(items, item)
		}
		return items, at
	case major == 5:
		items := map[any]any{}
		for n := uint64(0); n < value; n++ {
			var name, item any
			name, at = cbor(data, at)
			item, at = cbor(data, at)
			text, is := name.(string)
			require(is, "not leaf data")
			items[text] = item
		}
		return items, at
	case major == 6:
		content, end := cbor(data, at)
		return other{major, value, content}, end
	}
	return other{major, value, nil}, at
}

type row struct {
	source, kind any
	columns      map[any]any
}

// parseRow is nil if the data are not leaf data of format 1.
func parseRow(data []byte) (found *row) {
	defer func() {
		if recover() != nil {
			found = nil
		}
	}()
	value, end := cbor(data, 0)
	items, is := value.([]any)
	if !is || end != len(data) || (len(items) != 4 && len(items) != 5) || items[0] != int64(1) {
		return nil
	}
	columns, _ := items[3].(map[any]any)
	return &row{items[1], items[2], columns}
}

// Bundles. Pointers tell a field that is missing.

type entry struct {
	Index    *string      `json:"index"`
	Path     *[]int       `json:"path"`
	LeafData *string      `json:"leaf_data"`
	LeafHash *string      `json:"leaf_hash"`
	Source   *string      `json:"source"`
	Key      *[][2]string `json:"key"`
}

type bundle struct {
	Format     *string   `json:"format"`
	Checkpoint *string   `json:"checkpoint"`
	Nodes      *[]string `json:"nodes"`
	Entries    *[]entry  `json:"entries"`
	Hub        *bundle   `json:"hub"`
}

type consistency struct {
	Format *string   `json:"format"`
	Old    *string   `json:"old"`
	New    *string   `json:"new"`
	Path   *[]string `json:"path"`
}

type provenEntry struct {
	index    uint64
	leafHash hash
	data     []byte
}

func hashes(texts []string) (found []hash) {
	for _, text := range texts {
		found = append(found, unhash(text))
	}
	return found
}

func checkNodes(nodes []hash, entries []entry) {
	next, distinct := 0, map[hash]bool{}
	for _, e := range entries {
		require(e.Path != nil, "no path")
		for _, place := range *e.Path {
			require(place >= 0 && place <= next && place < len(nodes), "not the nodes of the paths")
			if place == next {
				require(!distinct[nodes[place]], "a node twice")
				distinct[nodes[place]] = true
				next++
			}
		}
	}
	require(next == len(nodes), "not the nodes of the paths")
}

func checkLabel(e entry, found *row) {
	if e.Source == nil || found == nil {
		return
	}
	require(found.source == *e.Source, "the leaf data are of another source")
	for _, pair := range *e.Key {
		if found.columns == nil {
			break
		}
		value, is := found.columns[pair[0]]
		require(is, "the leaf data have no such key column")
		want, integer := value.(int64)
		require(!integer || !signed.MatchString(pair[1]) || pair[1] == fmt.Sprint(want), "the leaf data have another key")
	}
}

func (e entry) verify(head checkpoint, nodes []hash) provenEntry {
	require(e.Index != nil && oneOf(e.LeafData != nil, e.LeafHash != nil), "not one of leaf_data and leaf_hash")
	require((e.Source == nil) == (e.Key == nil), "source or key alone")
	if e.Key != nil {
		names := map[string]bool{}
		for _, pair := range *e.Key {
			require(!names[pair[0]], "a key column twice")
			names[pair[0]] = true
		}
	}
	found := provenEntry{index: number(*e.Index)}
	if e.LeafData != nil {
		found.data = append([]byte{}, unbase64(*e.LeafData)...)
		found.leafHash = leaf(found.data)
	} else {
		found.leafHash = unhash(*e.LeafHash)
	}
	var path []hash
	for _, place := range *e.Path {
		path = append(path, nodes[place])
	}
	checkInclusion(found.leafHash, found.index, head.size, path, head.root)
	if found.data != nil {
		checkLabel(e, parseRow(found.data))
	}
	return found
}

func (b *bundle) verify(keys []key) (checkpoint, []provenEntry) {
	require(b.Format != nil && b.Checkpoint != nil && b.Nodes != nil && b.Entries != nil, "a field is missing")
	require(*b.Format == "merkle_log/proof-bundle@v1", "another format")
	head, nodes := openCheckpoint(*b.Checkpoint, keys), hashes(*b.Nodes)
	checkNodes(nodes, *b.Entries)
	var proven []provenEntry
	for _, e := range *b.Entries {
		found := e.verify(head, nodes)
		require(len(proven) == 0 || proven[len(proven)-1].index < found.index, "entries out of order")
		proven = append(proven, found)
	}
	require(len(proven) > 0, "no entries")
	if b.Hub != nil {
		_, entries := b.Hub.verify(keys)
		require(len(entries) == 1 && entries[0].data != nil, "the hub's entry is not there")
		checkHub(entries[0].data, head.text)
	}
	return head, proven
}

// checkHub requires that the hub's entry holds the checkpoint with this text.
func checkHub(data []byte, text string) {
	held := string(data)
	if found := parseRow(data); found != nil {
		require(found.kind == "insert" || found.kind == "update", "the hub's entry holds no checkpoint")
		column, is := found.columns["checkpoint"].(string)
		require(is, "the hub's entry holds no checkpoint")
		held = column
	}
	end := strings.LastIndex(held, "\n\n")
	require(held == text || held[:end+1] == text, "the hub holds another checkpoint")
}

func (c *consistency) verify(keys []key) checkpoint {
	require(c.Format != nil && c.Old != nil && c.New != nil && c.Path != nil, "a field is missing")
	require(*c.Format == "merkle_log/consistency@v1", "another format")
	from, to := openCheckpoint(*c.Old, keys), openCheckpoint(*c.New, keys)
	require(from.origin == to.origin, "checkpoints of two logs")
	checkConsistency(from, to, hashes(*c.Path))
	return to
}

// decode reads one JSON value with the fields of the target and no others; null is refused.
func decode(text string, into any) {
	require(!regexp.MustCompile(`:\s*null`).MatchString(text), "a field is null")
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	require(decoder.Decode(into) == nil, "malformed")
	_, err := decoder.Token()
	require(errors.Is(err, io.EOF), "something after the end")
}

func verify(text string, keys []key) (head checkpoint, entries []provenEntry, err error) {
	defer func() {
		if why, is := recover().(refused); is {
			err = errors.New(string(why))
		}
	}()
	var which map[string]json.RawMessage
	require(json.Unmarshal([]byte(text), &which) == nil, "malformed")
	if _, is := which["old"]; is {
		var proof consistency
		decode(text, &proof)
		return proof.verify(keys), nil, nil
	}
	var proof bundle
	decode(text, &proof)
	head, entries = proof.verify(keys)
	return head, entries, nil
}

// The vectors.

type vector struct {
	Name, Policy string
	JSON         *string
	Proven       struct {
		Origin, Size, Root string
		Entries            []struct {
			Index    string
			LeafHash string `json:"leaf_hash"`
		}
	}
}

func (v vector) keys() (keys []key) {
	for _, line := range strings.Split(v.Policy, "\n") {
		if strings.HasPrefix(line, "log ") {
			keys = append(keys, parseKey(strings.Fields(line)[1]))
		}
	}
	return keys
}

func (v vector) check(group string) error {
	head, entries, err := verify(*v.JSON, v.keys())
	if good := !strings.HasPrefix(group, "bad"); (err == nil) != good {
		return fmt.Errorf("%s: %s: %v", group, v.Name, err)
	}
	if group != "bundles" {
		return nil
	}
	same := head.origin == v.Proven.Origin && fmt.Sprint(head.size) == v.Proven.Size && hex.EncodeToString(head.root[:]) == v.Proven.Root
	same = same && len(entries) == len(v.Proven.Entries)
	for i := 0; same && i < len(entries); i++ {
		expected := v.Proven.Entries[i]
		same = fmt.Sprint(entries[i].index) == expected.Index && hex.EncodeToString(entries[i].leafHash[:]) == expected.LeafHash
	}
	if !same {
		return fmt.Errorf("%s: something else was proven", v.Name)
	}
	return nil
}

func checkVectors(file []byte) error {
	var groups map[string][]vector
	if err := json.Unmarshal(file, &groups); err != nil {
		return err
	}
	passed, skipped := 0, 0
	for group, vectors := range groups {
		for _, v := range vectors {
			if v.JSON == nil || strings.Contains(v.Policy, "witness ") && strings.HasPrefix(group, "bad") {
				skipped++
				continue
			}
			if err := v.check(group); err != nil {
				return err
			}
			passed++
		}
	}
	fmt.Printf("go: %d vectors passed, %d are about CBOR or witnesses\n", passed, skipped)
	if passed == 0 {
		return errors.New("there are no vectors")
	}
	return nil
}

func run(first, path string) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if first == "--vectors" {
		return checkVectors(file)
	}
	var keys []key
	for _, text := range strings.Split(first, ",") {
		keys = append(keys, parseKey(text))
	}
	head, entries, err := verify(string(file), keys)
	if err != nil {
		return fmt.Errorf("NOT PROVEN: %w", err)
	}
	fmt.Println("proven:", head.origin, head.size)
	for _, e := range entries {
		fmt.Printf("entry %d %x ", e.index, e.leafHash)
		if found := parseRow(e.data); found != nil {
			fmt.Println(found.kind, found.source, found.columns)
		} else {
			fmt.Println("no row")
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "verify.go KEY FILE, or verify.go --vectors FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
