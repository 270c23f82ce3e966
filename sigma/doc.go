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
// # Why it is fast
//
// A line of JSON is read from quote to quote: their places are found 64 bytes at a time, and escaped texts are left as they are until a
// rule asks for them. Predicates are shared between rules and evaluated at most once for an event (a generation stamp instead of
// clearing). For each rule a cover of its condition is chosen, such that the rule can only match if one of the cover's literals is in the
// event; all literals of a field are sought in one pass that looks at every second, fourth or eighth byte, and only rules of which a
// literal was found are evaluated. Which covers and which parts of literals are rare is known from training (trained.bin), and learnt from the
// events of a log source once it has had thousands; results do not depend on it. Values that came before are looked up instead of searched. Keywords are sought in the whole line before any value is looked at. Regular expressions are asked last,
// behind the literals that their matches must have, and run as automata that are built as far as texts lead. Values are folded to lower
// case at most once. A match makes no allocation once its buffers have grown.
//
// # Memory
//
// A Matcher keeps at most some 8 MB of automata and as much of values that it has seen, a Record and a Decoder the buffers of the largest event (256 KB of folded texts at most
// stay from one to the next). A Correlator holds at most MaxGroups groups: 120 bytes for a quiet one, 8 for each time, 16 for each value
// and each event that it points at.
//
// # Semantics
//
// Those of pySigma 1.5 where the specification is open. Strings compare without regard to case (Unicode simple folding); `re` and
// `cased` regard it. Null means absent or null. A comparison with an absent field is false, so its negation is true. Keywords are
// sought in every value of the event and in its raw text. See the tests for each point.
package sigma
