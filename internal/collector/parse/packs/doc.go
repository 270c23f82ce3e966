// Package packs holds the parsers that are data: one folder for each product, with a description (parser.yaml), samples (input.log,
// expected.ndjson), where the samples come from (SOURCES.tsv) and the device's settings in plain words (README.md).
//
// It reads descriptions, from the folders built into the program or from a signed pack that the hub sent, and compiles each to a Pack: a
// table of native names, patterns of literals and captures, and a list of steps that say what becomes of each value. It writes nothing
// and keeps nothing, so there is nothing to survive a crash; it counts nothing. Package parse runs a Pack over a line.
//
// A description comes from outside, so it is bounded here and cannot do much: it has no loops, no regular expressions and no arithmetic.
// Load refuses what is too large, too deep or too costly, and says file, line and reason. While a line is read, Fuel bounds the bytes
// that all patterns together may look at.
//
// docs/parsers.md says what a description can say.
package packs
