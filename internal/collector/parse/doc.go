// Package parse turns the log lines of gateways, servers and security products into event.Event with ECS 8 names.
//
// It reads e.Raw() and e.Created; it writes e's fields and e.Time. It keeps no state between lines except scratch memory and guesses that
// only save time, so there is nothing to survive a crash. It counts nothing: Parse answers which format understood the line, or that none did, and
// the collector counts that per sender.
//
// A line goes through three steps. The envelope (envelope.go) reads the syslog header in any of the framings that devices use.
// The dispatcher (parse.go) looks at a few bytes of the message and calls the parser of one device family: a pack of data (pack.go,
// packread.go, packops.go; package packs) or a Go file of its own. The normaliser (set.go) maps words to ECS: the device's own action stays in event.action, lower-cased, and
// event.type (allowed, denied), event.outcome and tocsin.verdict (allow, deny, detect) are derived from it.
//
// Rules that all parsers keep: the first of two equal keys wins; a value that is not in the line is never made up; values are
// parts of the line, numbers read from it, or copies in lower case; words such as "N/A" or "-" are absent values; a port 0 is
// no port. Input may be anything: truncated, mixed, a megabyte long, invalid UTF-8. Every loop moves forward.
package parse
