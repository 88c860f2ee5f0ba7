// Package hostnet makes the changes that `adit run` needs on its host, and
// takes them back: the TUN's MTU, addresses and state, the routes that lead
// protected traffic into it, and the rules that keep the gateway's own packets
// out of it. It owns nothing else of the host: it creates no device, no packet
// filter and no socket.
//
// # Routing
//
// All routes to the TUN live in a routing table of their own. One rule per
// address family sends packets there before the main table is asked:
//
//	173: not from all fwmark MARK lookup TABLE proto 173
//
// The gateway's own sockets carry MARK (SO_MARK), so that its outer packets
// never see the table. They reach the peer through the main table also when the
// peer lies inside a protected prefix, and when the protected prefix is the
// default route. No route to the peer is copied, so nothing goes stale when the
// host's routing changes.
//
// Inside the table the longest prefix wins:
//
//   - each protected prefix is a unicast route to the TUN;
//   - each protected prefix is also an unreachable route of a worse metric. It
//     decides nothing while the TUN is up. When the TUN goes away, because the
//     gateway was killed, its unicast routes go with it and this one is left:
//     protected traffic is refused, not sent in clear, until a new gateway
//     takes over or removes it;
//   - each local or bypassed prefix inside a protected one is a throw route: the
//     lookup goes on to the main table. A throw equal to a protected prefix is
//     left out: protect wins, the packet enters the TUN, and the policy there
//     decides. A throw that lies in no protected prefix would change nothing and
//     is left out too;
//   - fe80::/10 is thrown when it lies in a protected prefix: link-local traffic
//     never passes a gateway (RFC 4291 2.5.6). IPv6 multicast and the host's own
//     addresses are decided by the local table, in front of every rule of ours.
//
// The other design, routes in the main table and a rule that asks main first
// with suppress_prefixlength 0, was not taken: any route of main that is not
// the default, say 10.0.0.0/8 towards a core router, would be found before a
// protected 10.2.0.0/16 is looked at, and protected packets would leave in
// clear. Two tables are asked one after the other, not by longest prefix over
// both; so the table that protects must come first.
//
// Rules and routes carry protocol number 173, addresses carry no prefix route.
// What a killed gateway left behind is recognised by table and protocol number.
// Apply takes it over without a gap: it first puts the new state in place and
// then takes away what the new state has no use for.
//
// # Transport mode
//
// Transport mode protects the peer's own outer address: that /32 or /128 is a
// route into the TUN like any other. What programs of this host send there
// enters the TUN; what the gateway sends there is marked and leaves as before.
// What the gateway writes into the TUN comes from the peer's address, whose
// route leads into the TUN, so strict reverse path filtering on the TUN lets it
// pass.
//
// A program that has chosen no source address would get the TUN's, which the
// peer does not know. Plan.Sources names the outer address for such routes as
// their preferred source (ip route's src). It must be an address of the host:
// the kernel refuses another one. When the address goes away later, the IPv4
// route keeps it and the IPv6 route loses it, until an Update with the address
// back; both go on leading into the TUN.
//
// # Strict reverse path filtering
//
// With rp_filter=1 on the outside interface the kernel drops outer packets of a
// peer inside a protected prefix: the reverse route, which is looked up without
// a mark, leads to the TUN. Apply changes no sysctl; Applied.Notes says what to
// set.
package hostnet
