// Package peers measures our Sigma engine beside the best one that can be imported in Go, github.com/bradleyjkemp/sigma-go v0.6.6: the same
// upstream rules, the same events, the same routing by log source, JSON decoding included, in one run. It is a module of its own so that
// nothing else depends on the other engine:
//
//	cd bench/peers && go test -run xxx -bench . -benchtime 1x
package peers
