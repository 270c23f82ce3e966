// Package minimise decides what leaves a member's site, and takes out of it what may not.
//
// It reads events, a Policy (which events and, field by field, what of them), the member's own address ranges and the scheme's indicator
// set. It writes nothing to disk. What it decides, it decides from the event alone, so that the same line always has the same fate, but for
// one thing: whether a denial is the first of its source in a day, which makes it urgent and nothing else.
//
// An event goes through three steps. Prepare adds what the collector knows and the device does not: how its sender is known, how its source
// is proved, the direction from the member's own ranges, indicator hits, and a time that can be believed. Decide finds the first clause of
// the policy that fits and with it a reason, under which the event is counted whether it leaves or stays. Reduce copies the fields that
// may leave. A field that the policy does not name stays, whatever it is called: policies are lists of what may go, never of what may not.
//
// The policies "metadata" (the default) and "full" are built in as data; a member may write their own, let single fields go, keep single
// fields back, and ask for pseudonyms: own addresses then leave as addresses of fd00::/8, in texts too, and users as words, both made with a key
// that only the member has. Raw lines then stay, whatever the policy says, since everything stands in them. What the rules on the site say is
// written under the same list of fields (Detection).
package minimise
