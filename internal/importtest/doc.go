// Package importtest holds the test that keeps dependencies pointing one way (docs/design.md, section 5), and the one that says what may
// not be linked into the collector and the hub.
package importtest
