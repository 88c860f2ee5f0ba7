// Package mmsg owns what natt and rawip share: a non-blocking datagram socket
// in the runtime's poller that moves batches by recvmmsg and sendmmsg, with
// the control messages for addresses and traffic class, without allocating.
package mmsg
