// Package collector is the member's side: the agent that reads a gateway's logs, keeps content and benign traffic at home, and sends signs
// of attack to the hub.
//
// # The line
//
//	listen ─▶ archive ─▶ parse ─▶ detect ─▶ minimise ─▶ spool ─▶ seal ─▶ send
//
// Listeners give raw lines to the archive, and a line is received when the archive has it. One goroutine (Agent.loop) reads the archive
// like a queue and does everything up to sealing; it owns all state. One goroutine for each lane sends sealed batches until the hub has
// signed a receipt.
//
//	DIR/keys/        batch.key, tls.key, tls.crt, trust.json, archive.secret, pseudonyms.secret
//	DIR/enrolment.json
//	DIR/archive/     raw lines (package archive)
//	DIR/spool/       events that may leave, until the hub has them
//	DIR/batches/     what was sealed, byte for byte, with the receipts: the member's own record of what left; kept 14 days after the receipt
//	DIR/state/       where everything stands: one value, replaced as a whole
//	DIR/detector/    the on-site rules' memory, with the place in the archive it belongs to
//	DIR/indicators   the newest signed indicator set
//	DIR/reserve      some MiB for the moment when the disk is full (disk.go)
//	DIR/run/status.sock
//
// # Crashes
//
// A commit makes the spool durable, then the sealed batch if there is one, then the state, which names the ends of both and the place in
// the archive up to which lines are in them or counted. After a crash everything behind those places is cut off and made again from the
// archive, so that each line has exactly one fate and is counted once. A batch is sent only after the state names it, and always as the
// same bytes. The detector's memory is saved less often; the lines between it and the state are shown to it again, and what it says of them
// is dropped.
//
// # Copies
//
// A collector restored from an older copy of its disk has the keys and a sequence that the hub is already past. At the start, and when the
// hub refuses a sequence, the agent compares its streams with the hub's heads. Each batch says which lines (by their numbers, which never
// come twice) it counts and holds; the hub gives that note back with the head. So the agent knows which of its lines the hub has, begins a
// new epoch, and goes on with exactly the others. A hub restored from an older copy is behind: it gets the batches again, byte for byte.
//
// # Counts
//
// Of lines: received = not_understood + kept.REASON… + left.REASON…. Of events: left.REASON… + made.WHAT… = sent + waiting +
// dropped.REASON…; made.detection and made.evidence are events the collector made itself. The manifest of each live batch carries what was
// counted since the one before.
package collector
