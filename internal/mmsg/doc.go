// Package mmsg owns what natt and rawip share: a non-blocking datagram socket
// in the runtime's poller that moves batches by recvmmsg and sendmmsg, with
// the control messages for addresses and traffic class, without allocating. On
// UDP it sends and receives superpackets where the kernel can; see Offload.
// It knows neither what the datagrams hold nor who may receive them.
//
// Addresses with a zone (IPv6 link-local) are not supported as outer
// addresses: a netip zone is a string, and making one costs a lookup for each
// packet. Such a datagram is received without its zone, and sending one is
// refused with EINVAL.
package mmsg
