package main

// explanation tells an operator about one counter. docs/counters.md is printed
// from this list, and a test keeps it so.
type explanation struct {
	name    string
	meaning string
	// todo is what to do when the counter grows; "": nothing, it is the
	// traffic itself.
	todo string
}

// trafficCounters are the figures of what was carried.
var trafficCounters = []explanation{
	{"OutPackets", "packets from the TUN that were protected and sent", ""},
	{"OutBytes", "their bytes, before protection", ""},
	{"OutBypass", "packets from the TUN that were sent in clear, because a policy with `action: bypass` says so", "if it grows and should not: `adit policy list` names the policies that end in CLEAR"},
	{"OutKeepalives", "NAT keepalives sent (RFC 3948 section 4)", ""},
	{"InPackets", "packets that were received protected, checked, and written to the TUN", ""},
	{"InBytes", "their bytes, after the protection was taken off", ""},
	{"InKeepalives", "NAT keepalives received", ""},
	{"EventsLost", "events that the log had no room for", "the gateway is flooded: look at the drops beside it"},
}

// dropCounters are the reasons for which a packet is not carried, in the order
// of the walks.
var dropCounters = []explanation{
	{"OutMalformed", "what came from the TUN is no valid IP packet", "capture on the TUN (`tcpdump -i adit0`) and look for the sender; a few are harmless"},
	{"OutDiscard", "a policy says discard, or no policy matches (RFC 4301 section 5.1)", "if the traffic should pass, add a policy for it; `adit policy list` shows the order in which they are tried"},
	{"OutNoBypass", "a policy says bypass, and there is no socket to send clear packets with", "the gateway needs CAP_NET_RAW: see its log from the start"},
	{"OutNoSA", "a policy says protect, and the peer has no SA for it", "`adit sa list`: add an SA with `direction: out` to the peer"},
	{"OutTooBig", "longer than one outer packet can be", "lower `tun.mtu`, or leave it at auto"},
	{"OutSeqExhausted", "the SA has used its last sequence number (RFC 4303 section 3.3.3)", "replace the keys at both ends and reload; `esn: true` makes the space endless"},
	{"OutSeqReservation", "the next block of sequence numbers is not yet durable in `state_dir`", "a few under heavy load are harmless; if it keeps growing, `state_dir` is full, read-only or failing"},
	{"OutNoWire", "there is no socket for the SA's encapsulation and address family", "set `listen.raw: auto` for protocol 50, or use `encap: udp`; see the log from the start"},
	{"OutSendError", "the kernel refused the outer packet: no route to the peer, a firewall, a full queue, or a packet above the path's MTU", "`ip route get PEER` and the firewall's output rules; if only long packets fail, lower `tun.mtu`"},
	{"InMalformed", "too short, or no ESP packet", "a scanner, or something else uses the port; harmless unless it grows fast"},
	{"InNoIKE", "an IKE message came, and this version speaks no IKE", "the peer tries to negotiate: give it manual keys too"},
	{"InNoSA", "an SPI that no SA has (RFC 4303 section 3.4.2, auditable)", "the peer sends under an SPI that this end does not know: `adit check A --peer B` compares the two files"},
	{"InEndpoint", "the right SPI, sent to or from an address that is not the SA's", "compare `listen.address` and the peer's `address` with what tcpdump shows on the outside"},
	{"InReplay", "a sequence number that was seen before, or lies left of the window (RFC 4303 section 3.4.3, auditable)", "a few come with loss and retransmission; many: the path reorders (raise `replay_window`), the peer restarted with old numbers, or somebody replays packets"},
	{"InAuth", "the integrity check failed (RFC 4303 section 3.4.4, auditable)", "the keys or the suite differ at the two ends (`adit check A --peer B`), ESN differs, or packets are changed or forged on the way"},
	{"InPadding", "the padding is not 1, 2, 3 …, or is longer than the payload", "the peer's implementation is at fault, or the keys differ under a suite without integrity"},
	{"InDummy", "a dummy packet (next header 59, RFC 4303 section 2.6)", "nothing: the peer hides its traffic pattern"},
	{"InNextHeader", "a tunnel mode SA carried something that is not IP", "the peer uses transport mode: set it to tunnel mode"},
	{"InInner", "the packet inside is broken, or not of the announced IP version", "look for the sender behind the peer"},
	{"InECN", "congestion was marked on a packet whose sender does not know ECN (RFC 6040 section 4.2)", "a router on the way marks without asking; `ecn: compat` at the sender avoids it"},
	{"InSelector", "the packet inside is not what this SA may carry (RFC 4301 section 5.2, auditable)", "the two ends' policies do not mirror each other: `adit check A --peer B`"},
	{"InTUNError", "the kernel refused the packet at the TUN", "is the TUN up (`ip link show adit0`)? Somebody may have changed it"},
}

// explain is the explanation of a counter; the zero one for a counter that the
// running gateway has and this program does not know.
func explain(name string) explanation {
	for _, list := range [][]explanation{dropCounters, trafficCounters} {
		for _, e := range list {
			if e.name == name {
				return e
			}
		}
	}
	return explanation{name: name}
}
