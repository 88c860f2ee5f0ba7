// Package rawip owns the raw IP sockets: ESP without UDP (protocol 50) and AH
// (51), whose packets it can receive whole with their IP headers, the ICMP errors
// about what was sent, and the senders that put a whole IP packet on the wire
// unchanged. It knows no SA and no policy.
package rawip
