// Package spd owns the security policy database of RFC 4301 4.4.1: selectors,
// policies, their text forms, and a table that finds the first policy that
// matches a flow. A table is immutable and is replaced whole; one table serves
// both directions.
//
// It does not own security associations (package sad), the reading of packets
// (internal/packet), caches of decisions (the dataplane's workers have those)
// or files (package config). It has no sockets, goroutines, clocks or locks.
package spd
