// Package sigma is an engine for Sigma rules (specification 2.1.0): it parses them, compiles them against the numbered fields of a
// schema, matches events and correlates the matches. It imports nothing of the program around it.
//
// # The life of a rule
//
// [Parse] reads YAML documents into a [Collection]: detection rules, correlations and filters. A document that cannot be taken is an
// [Error] with file, line and reason; the others load. [Compile] makes an [Engine] of a collection: every field name becomes a [Key]
// of the caller's [Schema], every value with its modifiers becomes a predicate, every condition a tree of them. Rules that cannot be
// compiled are listed in the same way.
//
// [Engine.Set] gives the rules that apply to one log source, with their index; sets are made once and kept. A [Matcher] (one for each
// goroutine) then answers which rules match a [Record]. A [Correlator] turns matches into hits of correlation rules.
//
// Package examples show each of these steps. Rules given other names of fields first: [ParsePipeline] and [Collection.Apply].
//
// # Goroutines and ownership
//
// An Engine and its Sets are safe for concurrent use once all rules are compiled; so is a Names then. A Matcher, a Decoder, a Record, a
// Router and a Correlator belong to one goroutine each: two cores take two of each over one Engine, and share nothing that is written.
// Strings that were put into a Record must stay as they are until its next Reset.
//
// # Errors
//
// Nothing is left out in silence: what a file, a rule, a filter or a pipeline has wrong is an [Error] with file, line and reason, in the
// order in which it was met, and everything else works. Rules with placeholders that nobody supplied are in Engine.Unexpanded.
//
// # Why it is fast
//
// A line of JSON is read from quote to quote: their places are found 64 bytes at a time, and escaped texts are left as they are until a
// rule asks for them. Names of fields are expected in the order in which the last event of the kind had them.
//
// Predicates are shared between rules and evaluated at most once for an event (a generation stamp instead of clearing). For each rule a
// cover of its condition is chosen, such that the rule can only match if one of the cover's literals is in the event; all literals of a
// field are sought in one pass that looks at every second, fourth or eighth byte, and only rules of which a literal was found are
// evaluated. Which covers and which parts of literals are rare is known from training (trained.bin), and learnt from the events of a log
// source once it has had thousands; results do not depend on it. Values that came before are looked up, compared in full, instead of
// searched. Keywords are sought in the whole line before any value is looked at. Regular expressions are asked last, behind the literals
// that their matches must have, and run as automata that are built as far as texts lead. Values are folded to lower case at most once. A
// match makes no allocation once its buffers have grown.
//
// # Memory
//
// A Matcher keeps at most some 8 MB of automata, 8 MB of values up to a kilobyte that it has seen and 8 MB of longer ones; a Record and a
// Decoder the buffers of the largest event (256 KB of folded texts at most stay from one to the next). A Correlator holds at most
// MaxGroups groups, and of one scope ScopeGroups: 110 bytes for a quiet one, one to five for each instant that it keeps, eight more where
// values are counted, about four for each event that it points at. What is pushed out before its time is counted in its Stats.
//
// # Correlations
//
// Windows slide on event time and are closed at both ends. Counts of events are exact whatever the order in which events come, as long
// as each is at most a timespan behind the latest of its group; counts of values and of rules are exact in order, and out of order never
// too large. Events that the caller marks as late are counted among themselves. When a condition first holds for a group a [Hit] is told,
// and then, less and less often, what the episode adds. Conditions with an upper bound or a not are decided when their time is over.
// State is saved by [Correlator.Snapshot] and restored into the same or other rules.
//
// # Semantics
//
// Those of the specification; where it is open, those of pySigma 1.5. Strings compare without regard to case (Unicode simple folding);
// `re` and `cased` regard it. Null means absent or null. A comparison with an absent field is false, so its negation is true. Keywords are
// sought in every value of the event and in its raw text. Regular expressions are those of Go's RE2 (no look-around, no back-references: a
// rule with one is refused), with $ also before a line feed that ends the text. The tests name the section of the specification for each.
package sigma
