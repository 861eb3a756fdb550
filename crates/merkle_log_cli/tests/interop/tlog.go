// Checks or makes a directory as main.rs describes it, with golang.org/x/mod/sumdb/tlog and note.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const proofs = 1000

type inclusion struct {
	Index int64    `json:"index"`
	Size  int64    `json:"size"`
	Root  string   `json:"root"`
	Leaf  string   `json:"leaf"`
	Path  []string `json:"path"`
}

type consistency struct {
	Old     int64    `json:"old"`
	New     int64    `json:"new"`
	OldRoot string   `json:"old_root"`
	NewRoot string   `json:"new_root"`
	Path    []string `json:"path"`
}

type exchange struct {
	Size        int64         `json:"size"`
	Inclusion   []inclusion   `json:"inclusion"`
	Consistency []consistency `json:"consistency"`
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func require(holds bool, why ...any) {
	if !holds {
		panic(fmt.Sprint(why...))
	}
}

func read(parts ...string) []byte {
	data, err := os.ReadFile(filepath.Join(parts...))
	must(err)
	return data
}

func write(data []byte, parts ...string) {
	path := filepath.Join(parts...)
	must(os.MkdirAll(filepath.Dir(path), 0o777))
	must(os.WriteFile(path, data, 0o666))
}

func unhash(text string) (h tlog.Hash) {
	data, err := hex.DecodeString(text)
	must(err)
	copy(h[:], data)
	return h
}

func unhashes(texts []string) (found []tlog.Hash) {
	for _, text := range texts {
		found = append(found, unhash(text))
	}
	return found
}

func shown(h tlog.Hash) string { return hex.EncodeToString(h[:]) }

func allShown(hashes []tlog.Hash) []string {
	found := []string{}
	for _, h := range hashes {
		found = append(found, shown(h))
	}
	return found
}

// c2spPath is a tile's path as C2SP has it: Go's has the height first, and calls entries data.
func c2spPath(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}

// stored are the hashes that Go stores of a log.
type stored []tlog.Hash

func (s stored) ReadHashes(indexes []int64) (found []tlog.Hash, err error) {
	for _, index := range indexes {
		found = append(found, s[index])
	}
	return found, nil
}

func (s stored) with(n int64, entry []byte) stored {
	hashes, err := tlog.StoredHashes(n, entry, s)
	must(err)
	return append(s, hashes...)
}

func (s stored) root(size int64) tlog.Hash {
	root, err := tlog.TreeHash(size, s)
	must(err)
	return root
}

// directory reads tiles of an exported log, and checks them through tlog.TileHashReader.
type directory string

func (directory) Height() int { return 8 }

func (d directory) ReadTiles(tiles []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range tiles {
		data = append(data, read(string(d), c2spPath(tile)))
	}
	return data, nil
}

func (directory) SaveTiles([]tlog.Tile, [][]byte) {}

func entries(log string, size int64) (found [][]byte) {
	for n := int64(0); n*256 < size; n++ {
		width := int(size - n*256)
		if width > 256 {
			width = 256
		}
		bundle := read(log, c2spPath(tlog.Tile{H: 8, L: -1, N: n, W: width}))
		for i := 0; i < width; i++ {
			length := int(binary.BigEndian.Uint16(bundle))
			found, bundle = append(found, bundle[2:2+length]), bundle[2+length:]
		}
		require(len(bundle) == 0, "a bundle goes on")
	}
	return found
}

func check(at string) {
	log := filepath.Join(at, "log")
	verifier, err := note.NewVerifier(strings.TrimSpace(string(read(at, "vkey"))))
	must(err)
	opened, err := note.Open(read(log, "checkpoint"), note.VerifierList(verifier))
	must(err)
	require(len(opened.Sigs) == 1 && len(opened.UnverifiedSigs) == 1, "the log's signature and the witness's")
	var size int64
	lines := strings.Split(opened.Text, "\n")
	_, err = fmt.Sscan(lines[1], &size)
	must(err)
	root, err := tlog.ParseHash(lines[2])
	must(err)
	var hashes stored
	for n, entry := range entries(log, size) {
		hashes = hashes.with(int64(n), entry)
	}
	require(hashes.root(size) == root, "another root")
	for _, tile := range tlog.NewTiles(8, 0, size) {
		// This version of the package lists a partial tile with every width up to its own.
		if tile.W < 256 && int64(tile.W) != size>>(8*tile.L)%256 {
			continue
		}
		data, err := tlog.ReadTileData(tile, hashes)
		must(err)
		require(bytes.Equal(data, read(log, c2spPath(tile))), "another tile ", tile.Path())
	}
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, directory(log))
	var made exchange
	must(json.Unmarshal(read(at, "proofs.json"), &made))
	require(len(made.Inclusion) == proofs && len(made.Consistency) == proofs, "not all proofs")
	for _, p := range made.Inclusion {
		require(shown(hashes.root(p.Size)) == p.Root, "another root at ", p.Size)
		must(tlog.CheckRecord(unhashes(p.Path), p.Size, unhash(p.Root), p.Index, unhash(p.Leaf)))
		_, err := tlog.ProveRecord(size, p.Index, reader)
		must(err)
	}
	for _, p := range made.Consistency {
		must(tlog.CheckTree(unhashes(p.Path), p.New, unhash(p.NewRoot), p.Old, unhash(p.OldRoot)))
	}
}

func makeLog(at string) {
	const size = 66000
	log := filepath.Join(at, "log")
	random := mathrand.New(mathrand.NewSource(1))
	var hashes stored
	bundle, leaves := []byte{}, []tlog.Hash{}
	for n := int64(0); n < size; n++ {
		entry := make([]byte, random.Intn(40))
		random.Read(entry)
		hashes, leaves = hashes.with(n, entry), append(leaves, tlog.RecordHash(entry))
		bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
		if (n+1)%256 == 0 || n+1 == size {
			write(bundle, log, c2spPath(tlog.Tile{H: 8, L: -1, N: n / 256, W: int(n%256) + 1}))
			bundle = []byte{}
		}
	}
	for _, tile := range tlog.NewTiles(8, 0, size) {
		data, err := tlog.ReadTileData(tile, hashes)
		must(err)
		write(data, log, c2spPath(tile))
	}
	secret, public, err := note.GenerateKey(rand.Reader, "go.example.com/log")
	must(err)
	signer, err := note.NewSigner(secret)
	must(err)
	text := fmt.Sprintf("go.example.com/log\n%d\n%s\n", size, hashes.root(size))
	signed, err := note.Sign(&note.Note{Text: text}, signer)
	must(err)
	write(signed, log, "checkpoint")
	write([]byte(public+"\n"), at, "vkey")
	made := exchange{Size: size}
	for i := 0; i < proofs; i++ {
		to := 1 + random.Int63n(size)
		index, from := random.Int63n(to), 1+random.Int63n(to)
		record, err := tlog.ProveRecord(to, index, hashes)
		must(err)
		tree, err := tlog.ProveTree(to, from, hashes)
		must(err)
		root := shown(hashes.root(to))
		made.Inclusion = append(made.Inclusion, inclusion{index, to, root, shown(leaves[index]), allShown(record)})
		made.Consistency = append(made.Consistency, consistency{from, to, shown(hashes.root(from)), root, allShown(tree)})
	}
	data, err := json.Marshal(made)
	must(err)
	write(data, at, "proofs.json")
}

func main() {
	switch os.Args[1] {
	case "check":
		check(os.Args[2])
	case "make":
		makeLog(os.Args[2])
	default:
		panic(os.Args[1])
	}
}
