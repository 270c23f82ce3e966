// Package baseline learns what is usual at each member and says what is not: unusual rates for the hour of the week, things seen for the
// first time, contacts in a regular beat, and the same source, signature, URL pattern or TLS fingerprint at several members within a day.
// docs/decisions/0011-baselines.md says which sketch does what, with its errors, memory and what a forged sender can do.
//
// It reads events one by one (Process) in memory, at the hub over what left the sites, and on a site over everything; it gives detections,
// each with a sentence that holds its numbers. It writes nothing but, with Options.Dir, its own snapshots. The state is bounded by
// construction: so many bytes a member (Options.TenantBytes), so many members, so many keys across members. What does not fit is refused
// or pushed out, counted (Stats) and told once a day as a detection of its own.
//
// After a crash the state of the last snapshot is restored and the events since are processed again, with the same answers under the same
// keys. Time is event.created; an event may be 15 minutes late, later ones are counted and teach nothing.
//
// Who teaches: events of a sender that has begun to send another product's lines teach nothing. Lines over UDP, whose sender nobody has
// proved, have baselines of their own and cannot move those of senders that are known; what only a completed sign-in or connection can
// prove is learnt from those alone. Detections are bounded for each member, kind and day, apart for proved and unproved senders.
package baseline
