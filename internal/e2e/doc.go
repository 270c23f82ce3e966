// Package e2e tests the three programs as people and machines use them: built once, started as processes, spoken to through their
// sockets, files and command lines, killed, and fed with what they must refuse. It holds tests only.
//
// What it shows: the demo's story ends with exactly the expected alerts and every line accounted for, also when its processes are killed
// at random moments; bad input is refused or kept aside with a clear reason, counted, and never stops the line; every command says what
// to do next; strangers' programs can talk to ours and read what was sent.
//
// The event store needs its library (make data); tests that need it skip and say so when it is not there. TOCSIN_TEST_TORTURE=long asks
// for the long form of the fault tests.
package e2e
