// Package layer is what a scheme, a region or a member changes about detection rules: a rule switched off, an exception (a field and a value),
// another level. Rules come and go with updates; layers stay, each with a reason, an owner and mostly an end.
//
// It reads and writes the tables rule_layers and rule_suppressed. What layers do to events and detections is in package internal/detect/layers, whose
// set in memory Refresh keeps true; one set of rules serves every member. When a layer comes to its end Refresh says so once, in the log and in the audit
// trail. Rules that run on sites find there what was published to the sites (Site): a hub alone must not blind them.
//
// What is kept back is never lost from sight: each detection is a line of rule_suppressed under its key, so that a replay counts nothing twice,
// and each layer counts its hits. Hits of exceptions on single events are counted in memory and written now and then: a crash may lose the last
// seconds of them. Changes of level are counted as often as they are made.
package layer

import (
	"errors"

	"tocsin/internal/detect/layers"
)

// Names of package layers, which holds what they mean.
type (
	Layer = layers.Layer
	Rules = layers.Rules
	Set   = layers.Set
)

// Kinds and scopes.
const (
	Off, Except, Level     = layers.Off, layers.Except, layers.Level
	Scheme, Region, Member = layers.Scheme, layers.Region, layers.Member
)

// Errors a caller decides on; what is returned wraps them in a sentence.
var (
	ErrInvalid  = layers.ErrInvalid
	ErrNotFound = errors.New("not found")
)
