// Checks a proof bundle or a consistency proof (JSON) of merkle_log: docs/proof-format.md.
//
//	go run *.go KEY FILE             KEY: the log's verifier key; of several logs, separated by commas
//	go run *.go --vectors FILE       the vectors of the specification
//
// The standard library only; it shares no code with the project. Witnesses are not looked at.
package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

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

// aFaultIsLoud says whether a fault of this program stays one: nothing that it stops is proven, or refused.
func aFaultIsLoud() (loud bool) {
	defer func() { loud = recover() != nil }()
	func() (err error) {
		defer orRefused(&err)
		entry{path: []int{7}}.checkPath(checkpoint{}, nil)
		return nil
	}()
	return false
}

func checkVectors(file []byte) error {
	if !aFaultIsLoud() {
		return errors.New("a fault of this program goes unnoticed")
	}
	var groups map[string][]vector
	if err := json.Unmarshal(file, &groups); err != nil {
		return err
	}
	passed, skipped := 0, 0
	for group, vectors := range groups {
		// Absence proofs are Python's and the crate's.
		if strings.HasSuffix(group, "absence") {
			continue
		}
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

func parseKeys(texts string) (keys []key, err error) {
	defer orRefused(&err)
	for _, text := range strings.Split(texts, ",") {
		keys = append(keys, parseKey(text))
	}
	return keys, nil
}

func run(first, path string) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if first == "--vectors" {
		return checkVectors(file)
	}
	keys, err := parseKeys(first)
	if err != nil {
		return err
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
