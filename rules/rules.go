// Package rules holds our own detection rules: Sigma YAML with the attribute `tocsin` (see docs in README.md beside it), each with a
// file of events on which it must and must not fire.
package rules

import "embed"

// FS is the folder of rules.
//
//go:embed *.yml tests
var FS embed.FS

// Steps is the folder with what to do on each product, for each family of rules (package steps).
//
//go:embed steps
var Steps embed.FS
