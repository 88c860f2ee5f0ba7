package ike

// The grades of responder-only (Role). Whatever the grade, this end answers all
// that the peer begins, rekeys included.
//
//	                 begins IKE and Child SAs   rekeys   DPD, deletes
//	Both             yes                        yes      yes
//	NeverInitiate    no                         yes      yes
//	NeverRekey       yes                        no       yes
//	ResponderOnly    no                         no       yes
//	Passive          no                         no       no
//
// What is not rekeyed ends at its hard lifetime, and its traffic is dropped.
// Everything that is sent leaves from the address that the peer's message was sent
// to (ikeSA.path), so that behind a load balancer no packet has another source.

// initiates tells whether this end begins IKE SAs and new Child SAs.
func (r Role) initiates() bool { return r == Both || r == NeverRekey }

// rekeys tells whether this end begins rekeys.
func (r Role) rekeys() bool { return r == Both || r == NeverInitiate }

// String is the word of the configuration file.
func (r Role) String() string {
	switch r {
	case Both:
		return "off"
	case NeverInitiate:
		return "never-initiate"
	case NeverRekey:
		return "never-rekey"
	case ResponderOnly:
		return "full"
	case Passive:
		return "passive"
	}
	return "unknown"
}

// responderOnly is why nothing is begun with a peer.
func responderOnly(p *peer) failure {
	return failure{
		Reason: "responder_only", Text: "this end does not initiate: responder_only is " + p.Role.String(),
		Fix: "the other end has to initiate",
	}
}
