package sigma

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// expr is a parsed condition: a tree over the names of search identifiers.
type expr struct {
	op   exprOp
	name string
	kids []*expr
}

type exprOp uint8

const (
	exprName exprOp = iota
	exprAnd
	exprOr
	exprNot
)

// parseCondition reads a condition. not binds closest, then and, then or. Patterns are resolved to names here.
func parseCondition(text string, names []string) (*expr, error) {
	p := &condParser{names: names}
	if strings.Contains(text, "|") {
		return nil, errors.New("aggregations (| count() …) are no longer part of Sigma: write a correlation rule")
	}
	if err := p.lex(text); err != nil {
		return nil, err
	}
	x, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if len(p.tokens) > 0 {
		return nil, fmt.Errorf("%q is not expected here", p.tokens[0])
	}
	return x, nil
}

type condParser struct {
	tokens []string
	names  []string
}

func (p *condParser) lex(text string) error {
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '(' || c == ')':
			p.tokens = append(p.tokens, text[i:i+1])
			i++
		default:
			j := i
			for j < len(text) && !strings.ContainsRune(" \t\r\n()", rune(text[j])) {
				j++
			}
			p.tokens = append(p.tokens, text[i:j])
			i = j
		}
		if len(p.tokens) > 10_000 {
			return errors.New("the condition is too long")
		}
	}
	if len(p.tokens) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

// word says whether the next token is the operator w. Operators are taken in any case unless a search identifier has that very name.
func (p *condParser) word(w string) bool {
	if len(p.tokens) == 0 || !strings.EqualFold(p.tokens[0], w) {
		return false
	}
	if p.tokens[0] != w && slices.Contains(p.names, p.tokens[0]) {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *condParser) or(depth int) (*expr, error) {
	return p.list(depth, "or", exprOr, func(d int) (*expr, error) {
		return p.list(d, "and", exprAnd, p.not)
	})
}

func (p *condParser) list(depth int, word string, op exprOp, next func(int) (*expr, error)) (*expr, error) {
	x, err := next(depth)
	if err != nil {
		return nil, err
	}
	kids := []*expr{x}
	for p.word(word) {
		if x, err = next(depth); err != nil {
			return nil, err
		}
		kids = append(kids, x)
	}
	if len(kids) == 1 {
		return kids[0], nil
	}
	return &expr{op: op, kids: kids}, nil
}

func (p *condParser) not(depth int) (*expr, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deeply")
	}
	if p.word("not") {
		x, err := p.not(depth + 1)
		if err != nil {
			return nil, err
		}
		return &expr{op: exprNot, kids: []*expr{x}}, nil
	}
	if len(p.tokens) == 0 {
		return nil, errors.New("it ends where a search identifier is expected")
	}
	if p.tokens[0] == "(" {
		p.tokens = p.tokens[1:]
		x, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if len(p.tokens) == 0 || p.tokens[0] != ")" {
			return nil, errors.New("a closing parenthesis is missing")
		}
		p.tokens = p.tokens[1:]
		return x, nil
	}
	return p.operand()
}

func (p *condParser) operand() (*expr, error) {
	t := p.tokens[0]
	if len(p.tokens) >= 3 && strings.EqualFold(p.tokens[1], "of") {
		op := exprOr
		switch strings.ToLower(t) {
		case "1", "any":
		case "all":
			op = exprAnd
		default:
			return nil, fmt.Errorf("%q of: only 1, any and all are known", t)
		}
		pattern := p.tokens[2]
		p.tokens = p.tokens[3:]
		var kids []*expr
		for _, n := range p.names {
			if matchName(pattern, n) {
				kids = append(kids, &expr{name: n})
			}
		}
		switch len(kids) {
		case 0:
			return nil, fmt.Errorf("no search identifier is called %q", pattern)
		case 1:
			return kids[0], nil
		}
		return &expr{op: op, kids: kids}, nil
	}
	switch strings.ToLower(t) {
	case "and", "or", "not", ")":
		if !slices.Contains(p.names, t) {
			return nil, fmt.Errorf("%q is not expected here", t)
		}
	}
	if !slices.Contains(p.names, t) {
		return nil, fmt.Errorf("there is no search identifier %q", t)
	}
	p.tokens = p.tokens[1:]
	return &expr{name: t}, nil
}

// matchName compares a name with the pattern of an "x of" operator. Names that begin with an underscore are kept out of "them" and of
// patterns that do not begin with one themselves.
func matchName(pattern, name string) bool {
	if strings.HasPrefix(name, "_") && !strings.HasPrefix(pattern, "_") {
		return false
	}
	if pattern == "them" {
		return true
	}
	// Only the star is special in Sigma; path.Match would also see ?, [ and \.
	for _, c := range `?[\` {
		if strings.ContainsRune(pattern, c) {
			return pattern == name
		}
	}
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(name, "/", "\x00"))
	return err == nil && ok
}
