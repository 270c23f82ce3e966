// Package load makes load: many members, many events a second, for a measured time, against a hub on this machine.
//
// It generates lines from real samples (package sample), seeded, no line twice: the source port counts up within each member and every line
// carries its second. Sources are addresses kept for benchmarking (198.18.0.0/15, RFC 2544); 64 of them call on every member, the others on one,
// and each keeps to one port. Now and then a line of a sensor reports an exploit, which must become an alert: by these the latency of alerts is measured:
// until the alert is there, until its entries in the outbox are (one transaction), and until a receiver of this run's own, to which its hub posts alerts,
// has it.
//
// Two ways in. Presigned: the events are parsed, minimised, batched and signed beforehand, with the packages a collector uses and the times at which they
// will be sent, and then posted to the gate over mutual TLS, each member on its own connection; so the machine's time goes to the hub.
// Collectors: real tocsin-collector processes get raw lines over TCP syslog, benign ones too.
//
// What it reads: the hub's status. What it writes: a folder of its own, removed afterwards. It counts what was sent, acknowledged, refused by code, stored,
// kept aside and lost, and the CPU time of every process of the hub. Only loopback addresses are accepted: it is no tool against anybody.
package load
