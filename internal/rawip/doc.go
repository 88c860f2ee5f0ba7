// Package rawip owns the raw IP sockets: ESP without UDP (protocol 50), and
// the senders that put a whole IP packet on the wire unchanged (bypass). It
// knows no SA and no policy.
package rawip
