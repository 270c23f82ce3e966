// Package app wires the hub. It holds no logic of any stage; it opens them, joins them, runs them and stops them in the right order.
//
// # A guided tour
//
// Begin with open in line.go: it reads like the drawing in docs/design.md section 3.
//
// An event's life at the hub. A collector posts a batch to the gate (package gate), which checks it from the outside in: size, certificate,
// signature, digest, then what is inside. The gate writes the batch to the blob store (blob, encrypted under a key of that member's month),
// puts word of it on the bus (bus, JetStream), notes the stream's new head in the records (member), and only then signs a receipt. What
// has a receipt is durable three times over.
//
// Two follow the bus, each with its own place on it. The ledger (ledger, Tessera) adds the batch's digest to the tamper-evident log and
// signs checkpoints; what is asked of collectors (directives.go) is entered there too, and handed out only with the proof. The worker
// (worker) reads the batch back from the blob store, records what it is going to do, decodes the events, lets enrich add country and
// network and intel mark indicators, runs the rules of the hub (detect, over the Sigma engine in sigma), hands detections to alert, and
// inserts the rows into the event store. Detection comes before storage: nothing polls a store.
//
// The event store (eventstore) is ClickHouse in a child process of ours (cmd/tocsin-engine), started and supervised by package engine;
// the hub's own program never loads it. Alerts group detections by member, rule family and entity (alert), and record what people must
// be told in the outbox in the same transaction (outbox). notify is the outbox's way out: mail and webhooks.
//
// Beside the line: rules.go takes in changed rules while it runs, and lets layers (layer) switch off, except and change them; baselines.go puts what is
// usual at each member (baseline) beside the rules; detection.go watches whether detection can see at all (health) and raises its own alerts when not; rematch
// asks the stored history about what was not known then.
//
// Readers come last: web serves the pages from the store and the records; report makes each member's week, on demand and once a week by
// mail; joints.go holds the small adapters between stages that do not know
// each other; status.go adds every line up; socket.go answers the machine's operator.
//
// # What survives what
//
// Every stage says in its package comment what a crash leaves. In short: the database (SQLite, synchronous), the bus and the blob store
// are durable when their calls return; the ledger and the worker may see a message again and drop what they know; the event store is
// written under tokens, counted, and mended when the engine was killed; alerts have keys; outbox entries run once per key.
//
// What the worker cannot read it puts aside, with the reason, and goes on; when the fault is mended the operator has it tried again:
// deadletters.go. A hub put back from copies that are not equally old makes itself whole before anything comes in: restored.go.
//
// # What may be wrong
//
// One process holds every role; docs/design.md section 4 says how they part when a scheme grows, and nothing here has been tried that way
// yet. Pressure on collectors follows the worker's lag only. The health checks look at what can be asked cheaply; once a day a harmless event
// of each member goes from behind the gate to the alerts (daily.go).
package app
