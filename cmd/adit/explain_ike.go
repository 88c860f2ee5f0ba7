package main

import "strings"

// ikeCounters are the counters of IKE, by the names that `adit counters` gives them.
// One that has never moved is not among its output.
var ikeCounters = []explanation{
	{"IKEReceived", "messages that came to the machine, on both ports", ""},
	{"IKEInboxFull", "messages that found no room behind those that wait", "a flood of first messages: established peers are served before them, and genuine ones come again"},
	{"IKESendErrors", "messages that the kernel refused to send; each is said again when its time comes", "the log says why: no route, a firewall on output, or an address of this host that has gone"},
	{"IKEInstallErrors", "SAs that were negotiated and could not be installed; the negotiation failed cleanly", "the log has the reason, at the stage CHILD_SA"},
	{"IKEPanicRecovered", "steps of the machine that ended in a fault of adit; each cost the message that it was about", "report it, with the line of the log that says panic_recovered"},
	{"IKEEstablished", "IKE SAs that came up", ""},
	{"IKEInitAnswered", "first messages of peers that were answered with a key exchange", ""},
	{"IKEInitDone", "first exchanges that this end began and that were answered", ""},
	{"IKERetransmissions", "requests said again because no answer came", "some: packets are lost; many for one peer: it is not there, or its answers do not arrive"},
	{"IKELivenessChecks", "empty requests that asked a silent peer whether it is there (dead peer detection)", ""},
	{"IKEFragmentedMessages", "messages that came in IKE fragments (RFC 7383)", ""},
	{"IKEDuplicateRequests", "requests that came again and got the same answer again", ""},
	{"IKEDuplicateRequestUnanswered", "requests that came again before they were answered", ""},
	{"IKEDuplicateFragment", "fragments of a request that is answered already", ""},
	{"IKERekeyCollisions", "rekeys that both ends began at once; one of the two was deleted (RFC 7296 2.8)", ""},
	{"IKESaDuplicate", "IKE SAs that both ends began at once; one of the two was deleted", "responder_only at one end keeps it from happening"},
	{"IKESaDuplicates", "Child SAs for a policy that had one; one of the two was deleted", ""},
	{"IKEInitialContact", "IKE SAs that went because their peer had restarted", ""},
	{"IKEMoved", "peers followed to another address or port", ""},
	{"IKECookieDemanded", "first messages that were answered with a demand for a cookie: many half-open IKE SAs, or many from one place (RFC 7296 2.6)", "a flood if it goes on: who sends them cannot be known until a cookie comes back"},
	{"IKECookieForLength", "first messages that were answered with a demand for a cookie, because the answer would have been longer than the question", ""},
	{"IKETooManyHalfOpen", "first messages dropped: there are as many half-open IKE SAs as there may be", "a flood"},
	{"IKETooManyHalfOpenPrefix", "first messages dropped: too many half-open IKE SAs come from one place, IPv4 /24 or IPv6 /48, or from the address of one peer", "a flood, or very many peers behind one NAT that start at once"},
	{"IKETooManySas", "first messages dropped: there are as many IKE SAs as there may be", "report it, with the number of peers"},
	{"IKEHalfOpenExpired", "peers that began and never proved who they are", "a few: packets are lost. Many: a scan, or a peer whose IKE_AUTH does not arrive: is its path too narrow for long messages?"},
	{"IKEVerifiedAsNobody", "attempts under a name that no peer has, or by another kind of proof than the peer of that name gives", "a `remote_id` or `auth` that differs, which the log names; or somebody who wants to know who is here"},
	{"IKEMalformed", "messages that are no IKE, or broken", "noise; much of it: somebody scans"},
	{"IKENoIkeSa", "messages for an IKE SA that is not here", "after a restart a few are normal: the peer comes back by itself"},
	{"IKELowerVersion", "messages of IKEv1", "the peer is set to IKEv1: set it to IKEv2"},
	{"IKEHigherVersion", "messages of a later version of IKE", ""},
	{"IKEWrongDirection", "messages whose direction does not fit the IKE SA", "reflected packets, or somebody who tries"},
	{"IKEWrongPeerSpi", "messages with a wrong SPI of the peer", "somebody tries to guess"},
	{"IKEStaleResponse", "answers to requests that were answered already", ""},
	{"IKEResponseOfAnotherExchange", "answers of another exchange than the request's", "a fault of the peer"},
	{"IKERequestOutsideWindow", "requests that are older or newer than may come", "a few: late packets"},
	{"IKERequestInWrongState", "requests that do not fit what the IKE SA is waiting for", "a fault of the peer, or somebody who tries"},
	{"IKEUnprotected", "messages in clear where they must be encrypted", "somebody tries to forge"},
	{"IKENotAuthentic", "messages whose integrity check failed", "somebody tries to forge; or a peer that restarted in the middle"},
	{"IKEBadRequests", "authentic requests that say what may not be said", "a fault of the peer; the log names it"},
	{"IKEBadAnswers", "authentic answers that say what may not be said", "a fault of the peer; the log names it"},
	{"IKEInitHeader", "first messages whose header cannot be one's", "noise"},
	{"IKEInitSchema", "first messages that lack a payload, or have one too many", "a fault of the peer"},
	{"IKEInitCritical", "first messages with a critical payload that nobody knows (RFC 7296 2.5)", "the peer wants an extension that is not here"},
	{"IKEInitProtected", "first messages that are encrypted, which none can be yet", "noise, or somebody who tries"},
	{"IKEInitAnswerRubbish", "answers to first messages that make no sense; the real one is still waited for", "somebody tries to forge, or a fault of the peer"},
	{"IKEInitAnswerAgain", "answers to first messages that came again, or too late", ""},
	{"IKEStopping", "first messages that came while the gateway was stopping: nothing is begun any more", ""},
	{"IKERandFailed", "times that the system had no random bytes; what needed them failed", "report it: the system is broken"},
	{"IKEInitUnknownPeer", "first messages from addresses that no peer of the file has", "a peer whose `address` is wrong here, or a scan"},
	{"IKEInitNoProposal", "first messages with no proposal that is taken here", "the log has both ends' proposals, and what would help"},
	{"IKEInitInvalidKe", "first messages with a key exchange that is not the chosen one; the peer was told which (RFC 7296 1.3)", ""},
	{"IKEInitBadKe", "first messages with a key share that is none", "a fault of the peer, or somebody who tries"},
	{"IKEInitKeys", "first messages that no keys could be made of", "report it"},
	{"IKEAcquireUnknown", "packets that wanted an SA with a peer or policy that IKE does not know; they wait, and ask again a second later", "during a reload a few are normal"},
	{"IKEAcquireLate", "packets that wanted an SA which was there when the machine heard of them", ""},
	{"IKEAcquireTooSoon", "packets that wanted an SA shortly after a negotiation had failed", "the log says what it failed with"},
	{"IKEMessageIdsSpent", "requests on an IKE SA that has used all of its message IDs; it is ended (RFC 7296 2.2)", "a fault of the peer: it should have rekeyed long before"},
	{"IKETooMuchWork", "requests of authenticated peers that were answered TEMPORARY_FAILURE: their key exchanges would take more than one peer may have (RFC 7296 2.25)", "a few after a restart of a peer with many Child SAs and a dear group: they come again. Many: a fault of the peer, or somebody has its keys; `pfs` with `x25519` costs a hundredth"},
	{"IKEInitTooMuchWork", "first messages dropped: the dear key exchanges of strangers take as much as they may", "a flood: leave groups above `modp2048` out of `proposals` if no peer needs them"},
	{"IKETooManySasOfOne", "IKE SAs that went because their peer has made more than one peer may have", "a fault of the peer, or several gateways with one identity"},
	{"IKEInitTooLong", "first messages that are longer than any needs to be", "noise, or somebody who tries"},
	{"IKETooShortToAnswer", "questions that were not answered: the answer would have been longer than they were, to an address that nobody has verified", "noise"},
	{"IKEInitRefusedAgain", "refusals of a first exchange that was refused already; a better answer is still waited for", ""},
	{"IKEDuplicateFromElsewhere", "requests that came again from another address, and were not answered there", "a few: a peer's NAT has changed; many: somebody replays"},
	{"IKEUnknownError", "answers with an error of a number that nobody has defined", "a fault of the peer; the log names it"},
	{"IKEUnknownToken", "answers of the database that nobody waits for", "report it"},
	{"IKEPeerEventsSuppressed", "lines that the log was spared: one authenticated peer had caused thousands in ten seconds", "a fault of that peer, or somebody has its keys: the lines before say which it is"},
	{"IKEStrangerEventsSuppressed", "lines that the log was spared: strangers had caused too many in a second", "the counters beside it say what they were"},
}

// ikeFamilies explain counters whose names end in a reason, as the log writes it.
var ikeFamilies = []explanation{
	{"IKEFailed", "negotiations that failed; the end of the name is the reason, as the log gives it", "the log has a line for each: peer, stage, what both ends said and what would help"},
	{"IKEAcquire", "packets that wanted an SA and got none; the end of the name is why", "the log says more"},
	{"IKEInitAgain", "first exchanges that were begun anew: with a cookie, another key exchange", ""},
}

// explainIKE is the explanation of a counter of IKE.
func explainIKE(name string) explanation {
	for _, e := range ikeCounters {
		if e.name == name {
			return e
		}
	}
	for _, e := range ikeFamilies {
		if strings.HasPrefix(name, e.name) {
			return explanation{name: name, meaning: e.meaning, todo: e.todo}
		}
	}
	return explanation{name: name, meaning: "not known to this version of the command"}
}
