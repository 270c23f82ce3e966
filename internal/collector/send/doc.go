// Package send speaks with the hub's gate: it enrols a collector, renews its certificate, submits batches and fetches what the hub has for
// it, all over HTTPS with mutual TLS, the hub known by its key.
//
// It reads and writes the key folder through package keys and nothing else on disk. It keeps no queue: a batch is submitted as the bytes
// given, as often as they are given, and an answer counts only with a receipt that verifies and names exactly that batch. Refusals come as
// a *Problem, with the hub's code, its plain sentence and what to do next; everything else that goes wrong on the way is an error that the
// caller may try again after Backoff.
package send
