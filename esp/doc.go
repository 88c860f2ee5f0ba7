// Package esp owns the bytes and the cryptography of ESP packets (RFC 4303):
// header, IV, padding, trailer, ICV, and the suites that protect them. It
// works on runs of packets of one security association, in place, without
// allocating.
//
// It does not own sequence numbers, anti-replay, keys at rest, outer headers
// or the choice of an SA: a caller hands it numbers that it has reserved
// (Seal) or inferred (Open) and does the rest. It has no sockets, goroutines,
// locks or clocks.
//
// A Transform is immutable and shared by all workers; what a packet needs for
// a moment lies in the worker's own Scratch.
package esp
