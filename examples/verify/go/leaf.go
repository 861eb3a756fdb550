package main

import (
	"encoding/binary"
	"math/big"
	"regexp"
	"unicode/utf8"
)

// Leaf data (docs/leaf-format.md): CBOR in its one form, as far as columns are looked at. Integers are *big.Int, texts
// strings, arrays []any, maps map[string]any.

type other struct{ major, value, content any }

type reader struct {
	data []byte
	at   int
}

func (r *reader) take(length uint64) []byte {
	require(length <= uint64(len(r.data)-r.at), "not leaf data")
	r.at += int(length)
	return r.data[r.at-int(length) : r.at]
}

// head is the major type of an item, and its value in the shortest form.
func (r *reader) head() (major byte, value uint64) {
	first := r.take(1)[0]
	major, value = first>>5, uint64(first&31)
	require(value <= 27, "not leaf data")
	if value < 24 {
		require(major != 7 || (value >= 20 && value <= 22), "not leaf data")
		return major, value
	}
	width := 1 << (value - 24)
	least := uint64(24)
	if width > 1 {
		least = 1 << (4 * width)
	}
	var wide [8]byte
	copy(wide[8-width:], r.take(uint64(width)))
	value = binary.BigEndian.Uint64(wide[:])
	require((major == 7 && width > 1) || (major != 7 && value >= least), "not the shortest form")
	return major, value
}

func (r *reader) item(depth int) any {
	require(depth <= maxNesting, "not leaf data")
	major, value := r.head()
	integer := new(big.Int).SetUint64(value)
	switch major {
	case 0:
		return integer
	case 1:
		return integer.Not(integer)
	case 2:
		return other{major, string(r.take(value)), nil}
	case 3:
		text := string(r.take(value))
		require(utf8.ValidString(text), "not leaf data")
		return text
	case 4:
		items := []any{}
		for n := uint64(0); n < value; n++ {
			items = append(items, r.item(depth+1))
		}
		return items
	case 5:
		return r.fields(value, depth+1)
	case 6:
		return other{major, value, r.item(depth + 1)}
	}
	return other{major, value, nil}
}

func (r *reader) fields(count uint64, depth int) map[string]any {
	items, last := map[string]any{}, ""
	for n := uint64(0); n < count; n++ {
		start := r.at
		name, is := r.item(depth).(string)
		encoded := string(r.data[start:r.at])
		require(is && last < encoded, "not the one form of a map")
		items[name], last = r.item(depth), encoded
	}
	return items
}

type row struct {
	source, kind string
	columns      map[string]any // nil where the leaf data hold the digest of the columns
}

var (
	kinds    = regexp.MustCompile(`^(insert|update|delete|truncate|hash|redact|administration|seal)$`)
	contexts = regexp.MustCompile(`^(salt|at|app|xid|user|role|context|statement|statement_bytes)$`)
)

// parseRow is nil if the data are not leaf data of format 1.
func parseRow(data []byte) *row {
	found, err := readRow(data)
	if err != nil {
		return nil
	}
	return found
}

func readRow(data []byte) (found *row, err error) {
	defer orRefused(&err)
	require(len(data) <= maxLeafData, "too long")
	r := reader{data, 0}
	items, is := r.item(0).([]any)
	require(is && r.at == len(data) && (len(items) == 4 || len(items) == 5), "not leaf data")
	format, is := items[0].(*big.Int)
	require(is && format.Cmp(big.NewInt(1)) == 0, "not leaf data")
	source, isText := items[1].(string)
	kind, isKind := items[2].(string)
	require(isText && isKind && kinds.MatchString(kind), "not leaf data")
	columns, isMap := items[3].(map[string]any)
	digest, isBytes := items[3].(other)
	require(isMap || (isBytes && digest.major == byte(2) && len(digest.value.(string)) == 32), "not leaf data")
	if len(items) == 5 {
		context, is := items[4].(map[string]any)
		require(is && len(context) > 0, "not leaf data")
		for name := range context {
			require(contexts.MatchString(name), "not leaf data")
		}
	}
	return &row{source, kind, columns}, nil
}
