// Package spool keeps records on disk in a log of segments: the form in which a collector holds raw lines (package archive), events that
// wait to leave, what has left, and its own state.
//
// A segment is a file named after the number of its first record. It begins with a 16-byte header (magic, version, that number) and goes on
// with frames: length, CRC-32C over length and payload, payload; all numbers little-endian. Records are numbered from the segment's first
// one by one, so a missing segment shows as a gap in the numbers and what was lost can be counted to the record.
//
// It reads and writes the files of one folder and nothing else. An append is one write to the file: a killed process loses nothing that
// Append has answered for; a power cut loses nothing before the last Sync. After either, Open cuts a torn tail off the newest segment and
// says how many bytes it cut. A damaged frame in the middle makes a reader go on with the next segment and say how many bytes it left out;
// a log never refuses to open because of what is in it, and never needs a hand.
//
// When the disk is full an append takes back what it half wrote and gives the error; the log stays usable and the same append may be tried
// again.
//
// It counts records and bytes held, bytes cut at opening, and bytes passed over as damaged.
package spool
