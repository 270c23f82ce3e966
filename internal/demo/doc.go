// Package demo runs the whole system on one machine and plays a story on it.
//
// It is a supervisor: the hub and three collectors are child processes of the ordinary programs with ordinary configuration, and
// this package does to them only what people and devices would do. It creates members and sign-ins over the hub's admin socket, enrols the
// collectors with tokens, compares and confirms their check words, imports an indicator list, and sends log lines from invented devices
// through real UDP and TCP syslog sockets. A child that dies is started again.
//
// What it reads: templates of real lines (package sample), the hub's status and the collectors' own. What it writes: everything
// below one folder: hub/ (the hub's data), one folder for each collector, logs/ (what the children say), demo.json (ports and sign-ins
// of this demo, readable by its owner only). After a crash or Ctrl-C a second start goes on with the same folder.
//
// What it counts: each line handed to a socket, and then, for each member, where every one of them is: not understood, kept at home by
// reason, sent, acknowledged, stored. Run with Once it compares the alerts with those the story must raise (expectations.go) and
// says what is missing, what is unexpected and which lines are unaccounted for.
//
// With History it first invents a past (past.go makes the lines, history.go takes them through parser, policy, rules, places and store as
// real ones go) so that trends and reports have something to show. Every row of it is marked as invented, and so are the members' figures of
// that span. It belongs to no collector, so no sum of lines counts it. What was begun is written down first; a start after a crash finishes
// it and doubles nothing.
//
// All organisations, people and hosts are invented, all addresses are from ranges kept for documentation (RFC 5737, RFC 3849), for
// benchmarks (RFC 2544) or for private use.
package demo
