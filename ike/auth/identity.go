package auth

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/adit-ipsec/adit/ike/wire"
)

// MaxIdentity is how many bytes of identity data are taken from a peer or from a
// configuration.
const MaxIdentity = 1024

// Identity is what an end calls itself (RFC 7296 3.5). The zero value is none: as
// Remote.ID it stands for any.
type Identity struct {
	Kind wire.IDType
	Data []byte
}

// prefixes are those of typed identities, as swanctl.conf has them.
var prefixes = []struct {
	text string
	kind wire.IDType
}{
	{"ipv4:", wire.IDIPv4Addr}, {"ipv6:", wire.IDIPv6Addr}, {"fqdn:", wire.IDFQDN}, {"email:", wire.IDRFC822Addr},
	{"rfc822:", wire.IDRFC822Addr}, {"userfqdn:", wire.IDRFC822Addr}, {"asn1dn:", wire.IDDERASN1DN}, {"keyid:", wire.IDKeyID},
}

// ParseIdentity reads an identity by swanctl's rules: "" or "%any" is none; an IP
// address; "user@host"; "a.example.net"; a distinguished name "C=CH, O=x, CN=y" (in
// the order of the certificate); and with a prefix that names the type: "fqdn:",
// "@host", "email:", "ipv4:", "ipv6:", "asn1dn:", "keyid:". What follows keyid: is
// hexadecimal, here other than with swanctl; "#" in front of hexadecimal data gives
// the bytes of any type ("asn1dn:#3000", "{11}:#0102").
func ParseIdentity(text string) (Identity, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "%any" {
		return Identity{}, nil
	}
	id, err := parseIdentity(text)
	if err == nil {
		err = id.check()
	}
	if err != nil {
		return Identity{}, &Error{Reason: BadIdentity, Text: fmt.Sprintf("identity %s: %v", shown(text), err), Fix: `write a host name, user@host, an IP address, "C=.., O=.., CN=.." or keyid: with hexadecimal digits`}
	}
	return id, nil
}

func parseIdentity(text string) (Identity, error) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(text, p.text); ok {
			return parseTyped(p.kind, rest)
		}
	}
	if inner, rest, ok := strings.Cut(text, "}:"); ok && strings.HasPrefix(inner, "{") {
		kind, err := strconv.ParseUint(inner[1:], 10, 8)
		if err != nil {
			return Identity{}, fmt.Errorf("%q is no type of an identity", inner[1:])
		}
		return parseTyped(wire.IDType(kind), rest)
	}
	if rest, ok := strings.CutPrefix(text, "@#"); ok {
		return parseTyped(wire.IDKeyID, rest)
	}
	if rest, ok := strings.CutPrefix(text, "@@"); ok {
		return parseTyped(wire.IDRFC822Addr, rest)
	}
	if rest, ok := strings.CutPrefix(text, "@"); ok {
		return parseTyped(wire.IDFQDN, rest)
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		return addressIdentity(addr)
	}
	switch {
	case strings.Contains(text, "="):
		return parseTyped(wire.IDDERASN1DN, text)
	case strings.Contains(text, "@"):
		return parseTyped(wire.IDRFC822Addr, text)
	case strings.ContainsFunc(text, notInHostName):
		return Identity{}, fmt.Errorf("%q does not stand in host names", text[strings.IndexFunc(text, notInHostName):][:1])
	}
	return parseTyped(wire.IDFQDN, text)
}

// notInHostName: what would make a wildcard, or a slip, out of a bare host name.
func notInHostName(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.", r)
}

func parseTyped(kind wire.IDType, text string) (Identity, error) {
	if digits, ok := strings.CutPrefix(text, "#"); ok || kind == wire.IDKeyID {
		data, err := hex.DecodeString(digits)
		if err != nil {
			return Identity{}, fmt.Errorf("this is not hexadecimal: %w", err)
		}
		return Identity{Kind: kind, Data: data}, nil
	}
	switch kind {
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return Identity{}, err
		}
		id, err := addressIdentity(addr)
		if err == nil && id.Kind != kind {
			err = fmt.Errorf("%s is of the other family", addr)
		}
		return id, err
	case wire.IDDERASN1DN:
		der, err := parseDN(text)
		return Identity{Kind: kind, Data: der}, err
	}
	return Identity{Kind: kind, Data: []byte(text)}, nil
}

func addressIdentity(addr netip.Addr) (Identity, error) {
	switch {
	case addr.Zone() != "":
		return Identity{}, fmt.Errorf("%s has a zone", addr)
	case addr.Is4():
		return Identity{Kind: wire.IDIPv4Addr, Data: addr.AsSlice()}, nil
	}
	return Identity{Kind: wire.IDIPv6Addr, Data: addr.AsSlice()}, nil
}

// check holds what RFC 7296 3.5 says of each type.
func (id Identity) check() error {
	if len(id.Data) > MaxIdentity {
		return fmt.Errorf("%d bytes, more than %d", len(id.Data), MaxIdentity)
	}
	switch id.Kind {
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		// "A single four (4) octet IPv4 address", "A single sixteen (16) octet IPv6
		// address".
		if want := map[wire.IDType]int{wire.IDIPv4Addr: 4, wire.IDIPv6Addr: 16}[id.Kind]; len(id.Data) != want {
			return fmt.Errorf("an address of %d bytes", len(id.Data))
		}
	case wire.IDFQDN, wire.IDRFC822Addr:
		// "The string MUST NOT contain any terminators (e.g., NULL, CR, etc.)"
		if len(id.Data) == 0 || bytes.ContainsFunc(id.Data, unicode.IsControl) {
			return fmt.Errorf("empty, or with control characters in it")
		}
		if at := bytes.IndexByte(id.Data, '@'); id.Kind == wire.IDRFC822Addr && (at < 1 || at == len(id.Data)-1) {
			return fmt.Errorf("an e-mail address that is not user@host")
		}
	case wire.IDDERASN1DN:
		// The empty name would be that of every certificate without a subject.
		if names, ok := readDN(id.Data); !ok || len(names) == 0 {
			return fmt.Errorf("this is no distinguished name in DER, or an empty one")
		}
	case wire.IDKeyID:
		if len(id.Data) == 0 {
			return fmt.Errorf("empty")
		}
	default:
		return fmt.Errorf("identities of type %v are not supported", id.Kind)
	}
	return nil
}

// FromWire is the identity of an IDi or IDr payload; the data is copied. An
// identity of a type that nobody here can check (ID_NULL, a GeneralName) is an
// *Error.
func FromWire(p *wire.ID) (Identity, error) {
	if p == nil {
		return Identity{}, &Error{Reason: BadIdentity, Text: "the peer sent no identity"}
	}
	id := Identity{Kind: p.Kind, Data: bytes.Clone(p.Data)}
	if err := id.check(); err != nil {
		return Identity{}, &Error{Reason: BadIdentity, Text: "the peer's identity cannot be used: " + err.Error(), Theirs: Identity{Kind: p.Kind, Data: p.Data[:min(len(p.Data), MaxIdentity)]}.String()}
	}
	return id, nil
}

// Wire is the identity as a payload: IDr if responder, else IDi.
func (id Identity) Wire(responder bool) *wire.ID {
	return &wire.ID{Responder: responder, Kind: id.Kind, Data: id.Data}
}

// IsZero tells whether it is none.
func (id Identity) IsZero() bool { return id.Kind == 0 && len(id.Data) == 0 }

// Equal tells whether both name the same end. Host names are compared without
// regard to case; there are no wildcards. Distinguished names are equal if their
// attributes are, in their order, whichever of UTF8String, PrintableString and
// IA5String holds each value: a configuration does not say which. Everything else
// is compared byte by byte.
func (id Identity) Equal(other Identity) bool {
	if id.Kind != other.Kind {
		return false
	}
	switch id.Kind {
	case wire.IDFQDN:
		return foldASCII(id.Data) == foldASCII(other.Data)
	case wire.IDDERASN1DN:
		if !same(id.Data, other.Data) {
			return sameDN(id.Data, other.Data)
		}
		return true
	}
	return same(id.Data, other.Data)
}

// same compares what is no secret.
func same(a, b []byte) bool { return string(a) == string(b) }

func foldASCII(b []byte) string {
	folded := bytes.Clone(b)
	for i, c := range folded {
		if 'A' <= c && c <= 'Z' {
			folded[i] = c | 0x20
		}
	}
	return string(folded)
}

// String is the identity as ParseIdentity reads it, without control characters
// whatever the peer sent.
func (id Identity) String() string {
	if id.IsZero() {
		return "%any"
	}
	plain := id.plain()
	for _, text := range []string{plain, id.prefix() + plain} {
		if plain == "" || !printable(text) {
			break
		}
		if back, err := ParseIdentity(text); err == nil && back.Kind == id.Kind && (same(back.Data, id.Data) || id.Kind == wire.IDDERASN1DN && back.Equal(id)) {
			return text
		}
	}
	return id.prefix() + "#" + hex.EncodeToString(id.Data)
}

func (id Identity) plain() string {
	switch id.Kind {
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		if addr, ok := netip.AddrFromSlice(id.Data); ok {
			return addr.String()
		}
		return ""
	case wire.IDDERASN1DN:
		names, ok := readDN(id.Data)
		if !ok {
			return ""
		}
		return names.String()
	case wire.IDKeyID:
		return hex.EncodeToString(id.Data)
	case wire.IDFQDN, wire.IDRFC822Addr:
		return string(id.Data)
	}
	return ""
}

func (id Identity) prefix() string {
	for _, p := range prefixes {
		if p.kind == id.Kind {
			return p.text
		}
	}
	return "{" + strconv.Itoa(int(id.Kind)) + "}:"
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// shown is text for a message: quoted, and cut where it is long.
func shown(text string) string {
	if len(text) > 80 {
		text = text[:80] + "..."
	}
	return strconv.Quote(text)
}

// cut shortens text from a peer for a message.
func cut(text string) string {
	if len(text) > 160 {
		return text[:160] + "..."
	}
	return text
}
