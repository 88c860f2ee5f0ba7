// Package sad owns live security associations (RFC 4301 4.4.2): their keys'
// transform, sequence numbers, replay window, endpoints and counters, and the
// database that finds them, inbound by SPI and outbound by peer and policy.
//
// It does not own the bytes of a packet (package esp), policies (package spd),
// where keys come from, clocks, or how reserved numbers are made durable (a
// SequenceStore). It has no sockets, goroutines or files.
//
// An SA is built by New from Params, installed in a Database, and found through
// a Snapshot, which is immutable: workers load one per batch and take no lock to
// search it.
package sad
