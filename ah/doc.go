// Package ah owns the bytes and the cryptography of AH packets (RFC 4302): the
// header, the ICV over the IP header, AH and what follows, and the suites that
// make it. It works on batches of packets of one security association, in
// place, without allocating.
//
// AH covers the IP header in front of it, so a packet here is a whole IP
// packet as on the wire. One shape serves both modes: in tunnel mode the
// payload is an IP packet and the header in front is the outer one, in
// transport mode the payload is the upper layer and the header the packet's
// own, with its options or extension headers. Fields that routers change are
// zeroed, and source routes turned to their end, in a copy: on the wire they
// stay as they are.
//
// It does not own sequence numbers, anti-replay, keys at rest, IP headers,
// fragmentation, reassembly or the choice of an SA: a caller hands it numbers
// that it has reserved (Sign) or inferred (Verify) and whole packets with
// finished headers. It has no sockets, goroutines, locks or clocks.
//
// A Transform is immutable and shared by all workers; what a packet needs for
// a moment lies in the worker's own Scratch.
package ah
