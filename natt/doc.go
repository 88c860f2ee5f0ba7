// Package natt owns the UDP sockets of IKE and of UDP-encapsulated ESP: Conn reads
// and writes batches on port 4500, tells ESP, IKE and keepalives apart (RFC 3948
// section 2) and makes keepalives; IKEConn reads port 500 and sends IKE on both. It
// knows no SA, no key and no timer: who is sent a keepalive, and when, is the
// caller's decision.
package natt
