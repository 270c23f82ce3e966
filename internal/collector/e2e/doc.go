// Package e2e holds the tests of the collector against the real receiving side: gate, database, bus and blobs, in one process or with the
// real program in its own, killed, copied, cut off and starved of disk. It is apart from package collector so that neither the program nor
// the fuzz targets there link the hub's engines.
//
// TOCSIN_TORTURE=N makes the kills N instead of a few.
package e2e
