// Package archive keeps every raw line a collector receives, on the member's site, before anything else is done with it.
//
// It reads lines from the listeners (Batch, Append) and writes them to a spool.Log, one record a line with its receive time, sender and
// transport. Lines are numbered: the numbers rise for ever, also over restarts and restored copies, because each run begins at the current
// Unix second times 2^20 (or one after the last line, if that is more). So a number names one line of one collector and fits in the 53 bits
// that every JSON reader keeps.
//
// A line is received once Append has returned: a killed process does not lose it, and a power cut loses at most what came after the last
// Sync. The rest of the collector reads the archive like a queue (Reader) and remembers its place.
//
// When the disk is full, Append makes room by deleting the oldest lines that have been worked on, and waits when there are none: the
// listeners then stop reading, TCP senders are slowed down, and what UDP senders lose is counted by the kernel.
//
// Files whose lines have been worked on are packed (spool.Packer: zstd, each line still reached by its place and number), but for the newest few,
// at a fifth of one processor's time at most. Packed or not, they are read in the same way; those of an older version are packed too. A program from
// before files were packed does not see the packed ones.
//
// When the lines of each finished file were received stands in an index (times), which is made from the files: a question about an hour
// (Between) reads the files of that hour.
//
// Size and age are bound (Prune). Lines that had to be deleted before they were worked on are counted (Lost): this happens only when the
// bound is smaller than what comes in while the collector cannot work.
//
// Each line has a keyed digest (Digest): HMAC-SHA256 under a key for that line alone, which is derived from the archive's secret. The
// digest leaves the site with the event; the key is revealed with the line, when the member lets the line go, and proves that it is the
// line that was seen. Without the key the digest of even a short line cannot be guessed.
package archive
