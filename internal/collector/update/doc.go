// Package update brings a newer signed release to a collector's machine and takes it back by itself when it is not healthy.
//
// # What is where
//
// The package manager's program (/usr/bin/tocsin-collector) is never touched: it is what a machine can always come back to. Newer programs
// stand beside each other in a folder that only root may write, so that the collector cannot change what it runs:
//
//	DIR/SHA256/tocsin-collector   programs, named by their digest; whole or not there
//	DIR/state.json                which is in force, which is on trial, which were refused, and the newest release seen
//	DIR/lock, DIR/updater         locks: of the state for a moment, of the one updater for its whole run
//	DIR/fetch/                    what a child with the collector's own rights fetched, until it is verified
//
// At its start the packaged program looks at the state and runs the one on trial, or in force, in its place (Choose), if it is newer than
// itself and its digest is right. A package that is upgraded beyond it is in force again without further ado.
//
// # The switch
//
//	fetch → verify list and file → store → try it (version, settings) → trial in state → restart → watch → in force, or back
//
// State is replaced as a whole, so a crash leaves the state before or after each step. What a crash leaves in between:
//
//   - before the trial is in the state: files that the next run deletes;
//   - on trial, updater killed: the service manager starts the updater again, which goes on watching; if nothing does, the trial ends by
//     itself: Settle, which the service runs before each start, counts starts and takes the trial back after too many, or past its time;
//   - after it is in force: an old program that the next run deletes.
//
// A power cut at any moment therefore ends with a program that ran healthily here, or with the package's.
//
// # Trust
//
// Package release says what is refused. The updater adds: never a version that is not newer than what runs, never one that was taken back
// here (a person may try again with --again), never a program of another size or digest than the signed list names.
package update
