package sigma

import (
	"regexp/syntax"
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"
)

// automaton answers whether a regular expression matches a text. It is the expression's program run as a deterministic automaton whose
// states are made when they are first reached: a step is two table look-ups, where the standard library's machine, which it takes turns
// with on long texts, walks all threads for every character. It belongs to one goroutine.
//
// A state is what the threads wait for before the next character, with what kind the last character was. Characters that no instruction
// tells apart are one class.
type automaton struct {
	prog     *syntax.Prog
	ascii    [utf8.RuneSelf]uint8 // class
	starts   []rune               // first characters of the ranges from U+0080 on, ascending
	ranges   []uint8              // their classes
	sample   []rune               // one character of each class; the last is -1, the end of the text
	classes  int                  // the end of the text included
	kinds    bool                 // the expression asks what is beside a place: line feeds, words
	anchored bool

	states  []autoState
	next    []int32 // by state and class: where the row of the next state begins, or one of the constants
	numbers map[string]int32
	size    int // bytes, about
	resets  int

	seen  []uint32 // by instruction: the closure it was last in
	round uint32
	stack []uint32
	set   []uint32
	key   []byte
}

type autoState struct {
	threads []uint32
	last    rune // a sample of the last character's kind
}

const (
	autoUnknown = 0
	autoMatch   = -1
	autoDead    = -2

	autoStates = 1000 // then it begins again
	autoResets = 20   // then the expression is left to the standard library
	autoInsts  = 20_000
)

// newAutomaton gives nil for an expression that an automaton is not good at.
func newAutomaton(src string) *automaton {
	tree, err := syntax.Parse(src, syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil || len(prog.Inst) > autoInsts {
		return nil
	}
	a := &automaton{prog: prog, seen: make([]uint32, len(prog.Inst)), anchored: prog.StartCond()&syntax.EmptyBeginText != 0}
	if !a.classify() {
		return nil
	}
	a.reset()
	return a
}

// sharedAutomaton is what automata of one expression have in common, whoever runs them. It is made when the first is asked for.
type sharedAutomaton struct {
	once sync.Once
	a    *automaton // never run
}

// automaton gives one of src to run, as newAutomaton does.
func (s *sharedAutomaton) automaton(src string) *automaton {
	s.once.Do(func() { s.a = newAutomaton(src) })
	if s.a == nil {
		return nil
	}
	a := *s.a
	a.seen, a.stack, a.set, a.key = make([]uint32, len(a.prog.Inst)), nil, nil, nil
	a.reset()
	return &a
}

// classify works out the classes of characters.
func (a *automaton) classify() bool {
	cuts := []rune{0, utf8.RuneSelf, '\n', '\n' + 1}
	between := func(lo, hi rune) { cuts = append(cuts, lo, hi+1) }
	var insts []*syntax.Inst
	for i := range a.prog.Inst {
		in := &a.prog.Inst[i]
		switch in.Op {
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^(syntax.EmptyBeginText|syntax.EmptyEndText) != 0 {
				a.kinds = true
			}
		case syntax.InstRune, syntax.InstRune1:
			insts = append(insts, in)
			if len(in.Rune) == 1 {
				between(in.Rune[0], in.Rune[0])
				for r := unicode.SimpleFold(in.Rune[0]); r != in.Rune[0]; r = unicode.SimpleFold(r) {
					between(r, r)
				}
			}
			for j := 0; j+1 < len(in.Rune); j += 2 {
				between(in.Rune[j], in.Rune[j+1])
			}
		}
	}
	if a.kinds {
		for _, w := range []string{"09", "AZ", "__", "az"} {
			between(rune(w[0]), rune(w[1]))
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	if len(cuts)*len(insts) > 1<<20 {
		return false
	}
	same := map[string]uint8{} // class by what matches it
	var sign []byte
	for i, lo := range cuts {
		if lo > unicode.MaxRune {
			break
		}
		sign = sign[:0]
		for _, in := range insts {
			if in.MatchRune(lo) {
				sign = append(sign, 1)
			} else {
				sign = append(sign, 0)
			}
		}
		if lo == '\n' {
			sign = append(sign, 'n')
		} else if a.kinds && syntax.IsWordChar(lo) {
			sign = append(sign, 'w')
		}
		c, ok := same[string(sign)]
		if !ok {
			if len(same) == 255 {
				return false
			}
			c = uint8(len(same))
			same[string(sign)] = c
			a.sample = append(a.sample, lo)
		}
		if lo < utf8.RuneSelf {
			for r := lo; r < utf8.RuneSelf && (i+1 == len(cuts) || r < cuts[i+1]); r++ {
				a.ascii[r] = c
			}
		} else {
			a.starts, a.ranges = append(a.starts, lo), append(a.ranges, c)
		}
	}
	a.sample = append(a.sample, -1)
	a.classes = len(a.sample)
	return true
}

func (a *automaton) class(r rune) uint8 {
	i, found := slices.BinarySearch(a.starts, r)
	if !found {
		i--
	}
	return a.ranges[i]
}

func (a *automaton) reset() {
	a.states, a.next = nil, nil
	a.numbers = map[string]int32{}
	a.size = 4096 + 40*len(a.prog.Inst)
	a.state(nil, 0) // number 0 means unknown
	a.state([]uint32{uint32(a.prog.Start)}, -1)
}

// state gives the number of a state, making it if need be.
func (a *automaton) state(threads []uint32, last rune) int32 {
	slices.Sort(threads)
	a.key = append(a.key[:0], byte(last), byte(last>>8))
	for _, t := range threads {
		a.key = append(a.key, byte(t), byte(t>>8), byte(t>>16))
	}
	n, ok := a.numbers[string(a.key)]
	if !ok {
		n = int32(len(a.states))
		a.states = append(a.states, autoState{slices.Clone(threads), last})
		a.next = append(a.next, make([]int32, a.classes)...)
		a.numbers[string(a.key)] = n
		a.size += 4*a.classes + 7*len(threads) + 120
	}
	return n
}

// step works out where state number s goes with a character of class c.
func (a *automaton) step(s int32, c uint8) int32 {
	st := a.states[s]
	r := a.sample[c]
	cond := syntax.EmptyOpContext(st.last, r)
	if a.round++; a.round == 0 {
		clear(a.seen)
		a.round = 1
	}
	a.set = a.set[:0]
	a.stack = append(a.stack[:0], st.threads...)
	for len(a.stack) > 0 {
		pc := a.stack[len(a.stack)-1]
		a.stack = a.stack[:len(a.stack)-1]
		if a.seen[pc] == a.round {
			continue
		}
		a.seen[pc] = a.round
		in := &a.prog.Inst[pc]
		switch in.Op {
		case syntax.InstMatch:
			return autoMatch
		case syntax.InstAlt, syntax.InstAltMatch:
			a.stack = append(a.stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			a.stack = append(a.stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^cond == 0 {
				a.stack = append(a.stack, in.Out)
			}
		case syntax.InstRuneAny:
			if r >= 0 {
				a.set = append(a.set, in.Out)
			}
		case syntax.InstRuneAnyNotNL:
			if r >= 0 && r != '\n' {
				a.set = append(a.set, in.Out)
			}
		case syntax.InstRune, syntax.InstRune1:
			if r >= 0 && in.MatchRune(r) {
				a.set = append(a.set, in.Out)
			}
		}
	}
	if r < 0 {
		return autoDead
	}
	if !a.anchored {
		a.set = append(a.set, uint32(a.prog.Start))
	}
	slices.Sort(a.set)
	a.set = slices.Compact(a.set)
	if len(a.set) == 0 {
		return autoDead
	}
	last := ' '
	if a.kinds { // only these kinds are told apart
		if r == '\n' {
			last = '\n'
		} else if syntax.IsWordChar(r) {
			last = 'a'
		}
	}
	return a.state(a.set, last)
}

// match says whether the expression matches s. ok is false when it does not know: then the standard library must be asked.
func (a *automaton) match(s string) (matches, ok bool) {
	if a.resets > autoResets {
		return false, false
	}
	if len(a.states) > autoStates {
		a.reset()
		a.resets++
	}
	at := int32(a.classes) // state 1
	for i := 0; ; {
		c := uint8(a.classes - 1)
		if i < len(s) {
			if b := s[i]; b < utf8.RuneSelf {
				c = a.ascii[b]
				i++
			} else {
				r, n := utf8.DecodeRuneInString(s[i:])
				c = a.class(r)
				i += n
			}
		}
		next := a.next[int(at)+int(c)]
		if next == autoUnknown {
			if len(a.states) > 2*autoStates {
				return false, false // one text that needs so many states: the next begins anew
			}
			if next = a.step(at/int32(a.classes), c); next > 0 {
				next *= int32(a.classes)
			}
			a.next[int(at)+int(c)] = next
		}
		if next < 0 {
			return next == autoMatch, true
		}
		at = next
	}
}
