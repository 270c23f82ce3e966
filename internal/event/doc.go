// Package event holds the one event that every stage speaks about, from the collector's parser to the page an analyst reads.
//
// An Event is a flat list of typed values under ECS 8 field names. Names are interned: inside the process a field is a Key, a small number;
// on the wire and on disk it is its name. Numbers differ between builds and must never leave the process.
//
// Keys come from the schema (schema.txt), from rules and from signed packs, never from data: a sender cannot make the table grow. A field
// that has no key is an Extra, a pair of strings kept with its event, at most MaxExtras of them.
//
// A list is the same key several times, side by side. There is no nesting.
//
// An Event is made to be used again: Reset keeps its memory. Strings got from an event (its raw line, its values) are valid until the next
// Reset; Clone gives a copy that lives on. An Event belongs to one goroutine at a time.
//
// The package imports nothing of ours, writes nothing and counts nothing.
package event

//go:generate go run gen.go
