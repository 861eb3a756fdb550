package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"
)

// JSON, of which the formats have objects, lists, texts and natural numbers, and no field twice. Other readers take
// names in another case, null and the last of two fields for good: this one reads what is there.

type object map[string]any

var (
	surrogates    = regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}`)
	halfSurrogate = regexp.MustCompile(`(?i)\\ud[89a-f][0-9a-f]{2}`)
)

func parseJSON(text string) any {
	require(utf8.ValidString(text) && json.Valid([]byte(text)), "malformed")
	escapes := surrogates.ReplaceAllString(strings.ReplaceAll(text, `\\`, ""), "")
	require(!halfSurrogate.MatchString(escapes), "half a character")
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	return value(decoder)
}

func value(decoder *json.Decoder) any {
	token, err := decoder.Token()
	require(err == nil, "malformed")
	switch token {
	case json.Delim('{'):
		found := object{}
		for decoder.More() {
			name := text(value(decoder))
			_, twice := found[name]
			require(!twice, "a field is there twice")
			found[name] = value(decoder)
		}
		_, err = decoder.Token()
		require(err == nil, "malformed")
		return found
	case json.Delim('['):
		found := []any{}
		for decoder.More() {
			found = append(found, value(decoder))
		}
		_, err = decoder.Token()
		require(err == nil, "malformed")
		return found
	}
	return token
}

func text(value any) string {
	found, is := value.(string)
	require(is, "not a text")
	return found
}

func list(value any) []any {
	found, is := value.([]any)
	require(is, "not a list")
	return found
}

// fields is an object that has the required fields, and no others but the optional ones.
func fields(value any, required, optional string) object {
	found, is := value.(object)
	require(is, "not an object")
	for _, name := range strings.Fields(required) {
		require(found.has(name), "a field is missing: "+name)
	}
	known := map[string]bool{}
	for _, name := range strings.Fields(required + " " + optional) {
		known[name] = true
	}
	for name := range found {
		require(known[name], "an unknown field: "+name)
	}
	return found
}

func (o object) has(name string) bool {
	_, is := o[name]
	return is
}
