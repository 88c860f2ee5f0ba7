// Package natt owns the UDP socket of IKE and of UDP-encapsulated ESP: it
// reads and writes batches, tells ESP, IKE and keepalives apart (RFC 3948
// section 2) and makes keepalives. It knows no SA, no key and no timer: who is
// sent a keepalive, and when, is the caller's decision.
package natt
