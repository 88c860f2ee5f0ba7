// Package dataplane is the engine: TUN <-> policy <-> SA <-> wire.
//
// It owns the workers, their buffers and the two packet walks. outbound.go is
// a packet's way from the TUN to the wire, inbound.go its way back; each file
// begins with the walk and goes on with its functions in that order.
//
// It does not own keys (sad), policies (spd), the bytes of ESP (esp) or
// sockets (natt, internal/rawip), and it cannot tell who keyed an SA: manual
// configuration, IKE and the settings server all speak sad.Params and
// spd.Policy, and hear from it through Events.
//
// What holds on the packet path, and is held by tests: no allocation, no clock
// read, no channel and no lock per packet; the anti-replay window's lock is
// taken twice for a whole run of one SA's packets. Every packet that is not
// forwarded has exactly one DropReason, counted in exactly one place.
package dataplane
