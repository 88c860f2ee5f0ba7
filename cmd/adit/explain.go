package main

import "strings"

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
	{"OutPackets", "packets sealed and sent", ""},
	{"OutBytes", "the bytes of the packets inside", ""},
	{"OutBypass", "packets sent in clear, because a policy says bypass", "if it grows and should not: `adit policy list` shows which policies end in CLEAR"},
	{"OutKeepalives", "NAT keepalives sent (RFC 3948 4)", ""},
	{"OutDummies", "dummy packets sent (RFC 4303 2.6)", ""},
	{"OutTruncated", "reads of the TUN that held more segments than a batch, and lost the rest", "unusually small TCP segments: turn GRO off on the LAN interface (`ethtool -K lan0 gro off`), and report it"},
	{"OutTooBigSent", "senders behind this gateway that were told how long a packet may be (ICMP 3/4, ICMPv6 Packet Too Big)", ""},
	{"OutHeld", "packets that waited for their SA, or do now: the first ones of a flow while keys are negotiated", ""},
	{"OutReleased", "of those, packets that went on, in order, when the SA was there; the others are among the drops below, or wait", ""},
	{"InPackets", "packets opened, checked and handed to the TUN", ""},
	{"InBytes", "the bytes of the packets inside", ""},
	{"InKeepalives", "NAT keepalives received; they prove nothing about the peer", ""},
	{"InIKE", "IKE messages that came on the port of NAT traversal and were handed to IKE", ""},
	{"InPeerMoves", "a peer's newest packet came from another address or port, and the peer is answered there from then on (RFC 7296 2.23)", "a few: its NAT has forgotten the binding; many: set `nat_keepalive` at the peer, or see whether two hosts use its keys"},
	{"InPeerElsewhere", "authentic packets from another address or port than the peer's, which was not followed", "the log says why (`PeerElsewhere`); behind a move a few are late packets. If it is the peer, and `static` or `nat_keepalive` keeps this end from following, put its `address` and `port` right"},
	{"InSkipped", "datagrams longer than any packet, or fragments that the kernel did not reassemble", "none are expected: capture on the outside interface"},
	{"OffloadFallbacks", "superpackets that the kernel refused; their packets then went one by one", "speed is lost, packets are not: `adit status` says which offload; if it keeps growing, the path to a peer takes less than the TUN's packets need: lower `tun.mtu`"},
	{"EventsLost", "events that the log did not fetch in time", "a flood: look at the drops beside it"},
	{"InICMPTooBig", "ICMP messages from outside that quote a packet of an SA and lowered, or confirmed, its path MTU (RFC 4301 8.2)", ""},
	{"InICMPNoEffect", "ICMP errors from outside that quote a packet of an SA and have no effect: nobody has signed them", "if nothing comes through: `ip route get PEER`, and is the peer's port open?"},
	{"InICMPRefused", "ICMP errors from outside that fit no SA's recent packets: about other programs' packets, or forged", "other programs' are normal; a flood is somebody's attempt to make packets small"},
	{"OutProbes", "probes of the path's MTU sent inside SAs in use (RFC 8899)", ""},
	{"InProbeAnswers", "answers to them", "none, and OutProbes grows: the peer does not know probes; then only ICMP tells of a narrow path"},
	{"OutProbeAnswers", "answers to the peers' probes", ""},
	{"PathsNarrowed", "times that probes found a path narrower than was thought", "`adit sa list` shows each path's MTU; if it happens again and again, a router on the path drops long packets and its ICMP does not arrive"},
	{"InProbes", "probes and answers to them that arrived inside SAs", ""},
}

// dropCounters are the reasons for which a packet is not carried, in the order
// of the walks.
var dropCounters = []explanation{
	{"OutMalformed", "the TUN gave something that is no valid IP packet", "look at what writes to the TUN: `tcpdump -ni adit0`"},
	{"OutFragment", "a fragment that is broken (overlap, too short, too long), or that policies by port decide about and whose first fragment is not known (RFC 4301 7)", "few: a first fragment was lost, discarded, or came late. Many: fragments that arrive out of order, or somebody probes; `opaque` in the ports of a policy says where fragments without ports go"},
	{"OutDiscard", "a policy says discard, or no policy matches (RFC 4301 5.1, audit of the latter)", "if it should pass, add a policy; `adit policy list` shows the order"},
	{"OutNoBypass", "a policy says bypass, and there is no socket to send clear packets with", "see the log at start: raw sockets need `CAP_NET_RAW`"},
	{"OutNoSA", "a policy says protect, and its peer has no SA", "`adit sa list`; give the peer an SA with `direction: out`"},
	{"OutResponderOnly", "a policy says protect, its peer has no SA, and this end only answers (responder-only)", "nothing, if the peer begins when it has something to send; else look why it does not, or let this end begin"},
	{"OutHoldFull", "a policy says protect, its peer has no SA yet, and too many packets wait for theirs", "a few are a flow that sends faster than keys are negotiated. Many: look why negotiations take long or fail"},
	{"OutHoldExpired", "the packet waited for its SA, and there was none in time; its sender may have been told (host or address unreachable)", "the peer does not answer: `ip route get PEER`, and are its UDP ports 500 and 4500 open?"},
	{"OutRefused", "the packet waited for its SA, and the negotiation failed; its sender may have been told (administratively prohibited)", "the log says what the two ends differ in"},
	{"OutTooBig", "longer than the path to the peer takes, and not to be fragmented; its sender was told (RFC 4301 8.2)", "nothing, while OutTooBigSent moves too: senders then send shorter packets; `adit sa list` shows each path's MTU. A sender that does not listen: does a firewall behind this gateway drop ICMP?"},
	{"OutSegment", "a superpacket (many packets of a flow in one read) that cannot be cut into packets", "none are expected; `tun.offload: off` does without superpackets: report it with the kernel's version"},
	{"OutSeqExhausted", "the SA's sequence numbers are used up, it never sends again (RFC 4303 3.3.3, audit)", "change the keys at both ends and reload; use `esn: true`"},
	{"OutExpired", "the SA's hard lifetime is over (RFC 4301 4.4.2.1)", "a few as it ends are normal. Many: nobody replaces the SA in time: raise the hard limits, or look why the soft ones (SoftExpire in the log) had no effect"},
	{"OutSeqReservation", "the next block of sequence numbers could not be made durable", "disk full, read-only or failing? see `state_dir`"},
	{"OutSeal", "the packet could not be sealed; it did not leave in clear", "a bug of adit: report it with `adit sa list`"},
	{"OutNoWire", "no socket for the SA's encapsulation and address family", "`listen.raw`, `listen.address`; raw sockets need `CAP_NET_RAW`"},
	{"OutSendError", "the kernel refused the outer packet: firewall, no route, no buffer, or longer than the path takes", "`ip route get PEER`; output rules of the firewall; if only long packets fail, lower `tun.mtu`"},
	{"OutTransport", "a transport mode SA, and no whole packet between its two ends: a fragment, other addresses, or options that UDP cannot carry", "transport mode protects what the two gateways themselves say: use `mode: tunnel` for networks behind them; large UDP: let the application send smaller datagrams"},
	{"InMalformed", "too short, or neither ESP nor AH", "noise; much of it: somebody scans"},
	{"InNoIKE", "an IKE message came, and no peer of this gateway is keyed by IKE", "the peer is set to negotiate: give it `keying: ike` here, or manual keys at both ends"},
	{"InIKEFull", "an IKE message came, and there was no room for it behind those that wait", "a flood of first messages: established peers are served before them, and genuine ones come again. If it keeps growing without one, the machine is too slow for its peers"},
	{"InNoSA", "unknown SPI (RFC 4303 3.4.2, audit)", "the two ends disagree: `adit check FILE --peer OTHER`; after a change of keys a few are normal"},
	{"InEndpoint", "the SPI is right, and the outer addresses are not the SA's (RFC 4303 3.4.2, audit)", "sent to another of this host's addresses: see `listen.address`; or protocol 50, or anything in transport mode, that does not come from the peer's `address`"},
	{"InExpired", "the SA's hard lifetime is over at this end (RFC 4301 4.4.2.1)", "a few as it ends are normal: what the peer had sent before. Many: the lifetimes of the two ends differ; then `InNoSA` grows too"},
	{"InReplay", "the sequence number was seen before, or is older than the window (RFC 4303 3.4.3, audit)", "few: reordering; raise `replay_window`. All of them: the peer started its numbers again without its `state_dir`; restart this end, or change the keys. Else somebody replays"},
	{"InAuth", "the ICV is wrong (RFC 4303 3.4.4, audit)", "keys, suite or `esn` differ between the ends (`adit check FILE --peer OTHER`), or somebody forges packets. With `esn`, a packet older than the replay window counts here and not as InReplay: its number is taken for one of the next 2^32 (RFC 4303 appendix A2.2); if the path delays packets that long, raise `replay_window`"},
	{"InBundle", "one of AH and ESP was there, and the policy wants both (RFC 4301 5.2, audit)", "the peer sends only one: set its `protocol: ah+esp`; or somebody has taken the outer header off"},
	{"InPadding", "authentic, and the padding is not 1, 2, 3 …", "the peer pads in its own way: a fault of the peer"},
	{"InDummy", "a dummy packet (next header 59, RFC 4303 2.6)", "nothing: it is meant to be dropped"},
	{"InNextHeader", "authentic, and no IP packet inside", "the peer uses transport mode on this SA: set it to tunnel mode"},
	{"InInner", "authentic, and the inner packet is broken", "a fault behind the peer"},
	{"InECN", "congestion was marked outside on a packet that cannot tell its sender (RFC 6040 4.2, audit)", "a path that marks what it must not, or a peer without ECN: set `ecn: compat` there"},
	{"InSelector", "authentic, and not what this SA may carry (RFC 4301 5.2, audit)", "the policies at the two ends do not mirror each other: `adit check FILE --peer OTHER`. Else the peer oversteps"},
	{"InICMP", "authentic, and an ICMP error about a packet that never went to this peer (RFC 4301 6.2, audit)", "the policies at the two ends do not mirror each other: `adit check FILE --peer OTHER`; or a router behind the peer quotes less than the ports that a policy names. Else somebody behind the peer forges ICMP errors"},
	{"InFragment", "authentic, and the inner packet is a fragment that is broken, or that policies by port decide about and whose first fragment did not come on the same SA (RFC 4301 7)", "few: a first fragment was lost, or came late. Many: the peer sends fragments on another SA than their first ones"},
	{"InTUNError", "the TUN refused the packet", "is the device up? `ip link show adit0`, and the log"},
}

// explain is the explanation of a counter; one without words for a counter that
// the running gateway has and this program does not know.
func explain(name string) explanation {
	for _, list := range [][]explanation{dropCounters, trafficCounters} {
		for _, e := range list {
			if e.name == name {
				return e
			}
		}
	}
	if strings.HasPrefix(name, "IKE") {
		return explainIKE(name)
	}
	return explanation{name: name, meaning: "not known to this version of the command"}
}
