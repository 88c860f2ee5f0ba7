// Package ike is IKEv2 (RFC 7296) as a machine: what has happened goes in, what is
// to be done comes out. It has no sockets, no goroutines and no clock, so that a
// whole network of gateways runs in memory, in virtual time, from a seed.
//
//	Packet, Acquire, Expired, Tick ...  ->  Machine.Step  ->  Send, Install, Remove, Event ...
//
// One message, from the wire to the answer:
//
//	Step            machine.go       timers that are due, then the input
//	packet          table.go         parse, version, the IKE SA by our SPI; nothing by the peer's
//	  initRequest   initresponder.go IKE_SA_INIT: nothing is kept before the last of its steps
//	  answered      window.go        a response: to the one request that is on its way, or dropped
//	  asked         window.go        a request: the same answer again, or the next, or dropped
//	    table       table.go         state x exchange; the default is drop
//	    open        protect.go       authenticate, decrypt, put fragments together
//	    wire.Check                   the payloads that this exchange must and may have
//	    handler     one file per exchange: init, intermediate, auth, createchild, rekeyike,
//	                informational, mobike
//	    answer      window.go        sealed once, kept for who asks again
//
// Every drop has a name, and Stats counts it.
//
// # Who is authenticated
//
// An IKE SA is established by one function alone (establish), which takes an
// auth.Peer, which auth.Remote.Verify alone makes. Rekeyed ones have that of their
// predecessor. Only established IKE SAs have Child SAs.
//
// # Child SAs
//
// An Install is answered before anything else happens: the responder answers the
// peer once its inbound SA is in the SAD, and a failure undoes the exchange. Keys
// are in the Params of that one action, and nowhere else.
package ike
