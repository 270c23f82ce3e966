package web

// The compiled files are committed; this makes them again from the pinned
// packages (npm ci --ignore-scripts in assets-src first).
//
//go:generate go run ./gen
