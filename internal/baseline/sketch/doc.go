// Package sketch holds the small structures that baselines are made of: a filter that remembers keys and forgets old ones (Filter), and a
// counter of distinct keys (Distinct). Each says its error and its most bytes; none grows beyond them. Keys are 64-bit hashes made with a
// secret key (Hash), so that nobody can choose values that collide. Everything can be saved and restored through a Codec.
package sketch
