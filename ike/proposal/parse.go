package proposal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Parse reads a proposal as swanctl.conf writes it: keywords with hyphens, as in
// "aes256gcm16-prfsha384-x25519-ke1_mlkem768" for IKE, "aes128-sha256-x25519-esn"
// for ESP, "sha256" for AH. Several keywords of one kind are a choice, the first
// the most wanted. As there:
//
//   - without a PRF the hashes of integrity are the PRFs; they may be named with a
//     combined mode for that purpose alone ("aes256gcm16-sha384-ecp384");
//   - without "esn" sequence numbers have 32 bits.
//
// Other than there a combined mode without a PRF gets prfsha256, and combined
// modes and others together are refused, not split. legacy allows what RFC 8247
// and RFC 8221 keep for old peers. Errors of refused keywords name the RFC.
func Parse(protocol wire.ProtocolID, keyword string, legacy bool) (Proposal, error) {
	p := Proposal{Protocol: protocol}
	if protocol != protoIKE && protocol != protoAH && protocol != protoESP {
		return Proposal{}, fmt.Errorf("proposal: protocol %d has no proposals", uint8(protocol))
	}
	for _, word := range strings.Split(keyword, "-") {
		t, err := parseWord(protocol, word, legacy)
		if err == nil && slices.Contains(p.Transforms, t) {
			err = fmt.Errorf("%q is named twice", word)
		}
		if err != nil {
			return Proposal{}, fmt.Errorf("proposal %q: %w", clip(keyword), err)
		}
		p.Transforms = append(p.Transforms, t)
	}
	p, err := p.completed()
	if err != nil {
		return Proposal{}, fmt.Errorf("proposal %q: %w", clip(keyword), err)
	}
	return p, nil
}

// ParseExchanges reads the key exchanges of a Child SA that is made or renewed in
// CREATE_CHILD_SA, as in "x25519-ecp256-none-ke1_mlkem768": what gives it perfect
// forward secrecy.
func ParseExchanges(keyword string) ([]wire.Transform, error) {
	p := Proposal{Protocol: protoESP}
	for _, word := range strings.Split(keyword, "-") {
		t, err := parseWord(protoESP, word, false)
		if err == nil && t.Type != typeKE && !additional(t.Type) {
			err = fmt.Errorf("%q is no key exchange", word)
		}
		if err == nil && slices.Contains(p.Transforms, t) {
			err = fmt.Errorf("%q is named twice", word)
		}
		if err != nil {
			return nil, fmt.Errorf("proposal: %w", err)
		}
		p.Transforms = append(p.Transforms, t)
	}
	if err := p.checkExchanges(); err != nil {
		return nil, fmt.Errorf("proposal: %w", err)
	}
	return p.Transforms, nil
}

// parseWord reads one keyword.
func parseWord(protocol wire.ProtocolID, word string, legacy bool) (wire.Transform, error) {
	name, round := word, wire.TransformType(0)
	if len(word) > 4 && strings.HasPrefix(word, "ke") && word[3] == '_' {
		if word[2] < '1' || word[2] > '7' {
			return wire.Transform{}, fmt.Errorf("%q: additional key exchanges are ke1_ to ke7_ (RFC 9370 2.2.1)", clip(word))
		}
		name, round = word[4:], typeAddKE1+wire.TransformType(word[2]-'1')
	}
	r, ok := byKeyword(protocol, name)
	switch {
	case !ok:
		return wire.Transform{}, fmt.Errorf("unknown keyword %q; near ones: %s", clip(word), strings.Join(near(protocol, name, 4), ", "))
	case r.refuse != "":
		return wire.Transform{}, fmt.Errorf("%q is refused: %s", word, r.refuse)
	case !r.in.has(protocol):
		return wire.Transform{}, fmt.Errorf("%q is not for %s", word, protocolName(protocol))
	case r.legacy != "" && !legacy:
		return wire.Transform{}, fmt.Errorf("%q needs allow_legacy: true: %s", word, r.legacy)
	case round != 0 && r.kind != typeKE:
		return wire.Transform{}, fmt.Errorf("%q: only a key exchange can be an additional one", word)
	}
	t := r.transform()
	if round != 0 {
		t.Type = round
	}
	return t, nil
}

// completed sorts the transforms by type, adds what is implied, and refuses what
// is no proposal.
func (p Proposal) completed() (Proposal, error) {
	combined, other := p.ciphers()
	if combined && other {
		// RFC 7296 3.3: "If an initiator wants to propose both
		// combined-mode ciphers and normal ciphers, it must include two
		// proposals".
		return Proposal{}, errors.New("combined modes (gcm, ccm, chacha20poly1305) and others need a proposal each (RFC 7296 3.3)")
	}
	var err error
	switch p.Protocol {
	case protoIKE:
		err = p.completeIKE(combined)
	case protoESP:
		err = p.completeESP(combined)
	case protoAH:
		if len(p.of(typeInteg)) == 0 {
			err = errors.New("integrity is missing: add sha256")
		}
	}
	if err == nil && p.Protocol != protoIKE && len(p.of(typeESN)) == 0 {
		p.Transforms = append(p.Transforms, wire.Transform{Type: typeESN})
	}
	if err == nil {
		err = p.checkExchanges()
	}
	if err != nil {
		return Proposal{}, err
	}
	slices.SortStableFunc(p.Transforms, func(a, b wire.Transform) int { return cmp.Compare(a.Type, b.Type) })
	return p, nil
}

func (p *Proposal) completeIKE(combined bool) error {
	if len(p.of(typeEncr)) == 0 {
		return errors.New("encryption is missing: add aes128gcm16 or aes128-sha256")
	}
	integ := p.of(typeInteg)
	if len(integ) == 0 && !combined {
		return errors.New("integrity is missing: add sha256, or use aes128gcm16 (RFC 8247 2.1)")
	}
	if len(p.of(typePRF)) == 0 {
		p.Transforms = append(p.Transforms, impliedPRFs(p.Transforms)...)
		if len(integ) == 0 {
			p.Transforms = append(p.Transforms, wire.Transform{Type: typePRF, ID: uint16(PRFSHA256)})
		}
	} else if combined && len(integ) > 0 {
		return fmt.Errorf("a combined mode has no other integrity (RFC 7296 3.3): leave out %s", nameOf(p.Protocol, integ[0]))
	}
	if combined {
		p.drop(typeInteg)
	}
	for _, t := range p.of(typeKE) {
		switch KE(t.ID) {
		case KENone:
			return errors.New("an IKE SA needs a key exchange (RFC 7296 3.3.3): add x25519")
		case KEMLKEM768, KEMLKEM1024:
			return fmt.Errorf("%s alone in IKE_SA_INIT, which cannot be fragmented (RFC 7383 2.3), is refused: make it an additional one, x25519-ke1_%[1]s (RFC 9370)", KE(t.ID))
		}
	}
	if len(p.of(typeKE)) == 0 {
		return errors.New("the key exchange is missing: add x25519, ecp256 or modp2048")
	}
	return nil
}

func (p *Proposal) completeESP(combined bool) error {
	integ := p.of(typeInteg)
	switch {
	case len(p.of(typeEncr)) == 0:
		return errors.New("encryption is missing: add aes128gcm16, aes128-sha256 or null-sha256")
	case combined && len(integ) > 0:
		return fmt.Errorf("a combined mode MUST NOT have another integrity algorithm (RFC 8221 4): leave out %s", nameOf(p.Protocol, integ[0]))
	case !combined && len(integ) == 0:
		return errors.New("encryption without authentication MUST NOT be used (RFC 8221 4): add sha256, or use aes128gcm16")
	}
	return nil
}

// checkExchanges holds that an additional key exchange has something to be
// additional to, and that all can differ.
func (p Proposal) checkExchanges() error {
	for t := typeAddKE1; t <= typeAddKE7; t++ {
		if len(p.of(t)) > 0 && len(p.of(typeKE)) == 0 {
			return fmt.Errorf("ke%d_ adds to a key exchange, and there is none: add x25519 (RFC 9370 2.2.1)", t-typeAddKE1+1)
		}
	}
	candidates := map[wire.TransformType][]wire.Transform{}
	for _, t := range exchangeTypes() {
		if of := p.of(t); len(of) > 0 {
			candidates[t] = of
		}
	}
	if _, ok := distinct(candidates); !ok {
		return errors.New("no choice of these key exchanges has each method once, as RFC 9370 2.2.1 wants")
	}
	return nil
}

// impliedPRFs are the PRFs of the hashes of integrity, in their order.
func impliedPRFs(transforms []wire.Transform) []wire.Transform {
	var prfs []wire.Transform
	for _, i := range ofType(transforms, typeInteg) {
		prfs = append(prfs, wire.Transform{Type: typePRF, ID: uint16(prfOf(Integ(i.ID)))})
	}
	return prfs
}

// prfOf is the PRF of the same hash.
func prfOf(i Integ) PRF {
	switch i {
	case IntegSHA1:
		return PRFSHA1
	case IntegSHA256:
		return PRFSHA256
	case IntegSHA384:
		return PRFSHA384
	case IntegSHA512:
		return PRFSHA512
	}
	return 0
}

// ciphers tells which kinds of encryption there are.
func (p Proposal) ciphers() (combined, other bool) {
	for _, t := range p.of(typeEncr) {
		if Encr(t.ID).Combined() {
			combined = true
		} else {
			other = true
		}
	}
	return combined, other
}

// of lists the transforms of a type.
func (p Proposal) of(kind wire.TransformType) []wire.Transform {
	return ofType(p.Transforms, kind)
}

func ofType(transforms []wire.Transform, kind wire.TransformType) []wire.Transform {
	var of []wire.Transform
	for _, t := range transforms {
		if t.Type == kind {
			of = append(of, t)
		}
	}
	return of
}

func (p *Proposal) drop(kind wire.TransformType) {
	p.Transforms = slices.DeleteFunc(p.Transforms, func(t wire.Transform) bool { return t.Type == kind })
}

func protocolName(p wire.ProtocolID) string {
	switch p {
	case protoIKE:
		return "IKE"
	case protoAH:
		return "AH"
	case protoESP:
		return "ESP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// near lists the n keywords of a protocol closest to word by edit distance.
func near(p wire.ProtocolID, word string, n int) []string {
	var names []string
	for _, r := range table {
		if r.in.has(p) && r.legacy == "" {
			names = append(names, r.name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(distance(word, a), distance(word, b)) })
	return names[:min(n, len(names))]
}

// distance is the Levenshtein distance of the first 32 bytes of a and of b.
func distance(a, b string) int {
	a, b = a[:min(len(a), 32)], b[:min(len(b), 32)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := left
			if a[i] != b[j] {
				cost++
			}
			left = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// clip keeps an error readable whatever was written.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
