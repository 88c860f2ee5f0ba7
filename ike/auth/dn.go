package auth

import (
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// attribute is one AttributeTypeAndValue of a distinguished name (RFC 5280
// 4.1.2.4): tag and content of its value.
type attribute struct {
	kind  asn1.ObjectIdentifier
	tag   cbasn1.Tag
	value []byte
}

// distinguished is an RDNSequence: a list of sets.
type distinguished [][]attribute

// attributeNames are the types that have a name. SN is the surname, as with
// strongSwan; the first name of a type is the one that is written.
var attributeNames = []struct {
	name string
	kind asn1.ObjectIdentifier
	tag  cbasn1.Tag
}{
	{"C", asn1.ObjectIdentifier{2, 5, 4, 6}, cbasn1.PrintableString},
	{"ST", asn1.ObjectIdentifier{2, 5, 4, 8}, cbasn1.UTF8String},
	{"L", asn1.ObjectIdentifier{2, 5, 4, 7}, cbasn1.UTF8String},
	{"O", asn1.ObjectIdentifier{2, 5, 4, 10}, cbasn1.UTF8String},
	{"OU", asn1.ObjectIdentifier{2, 5, 4, 11}, cbasn1.UTF8String},
	{"CN", asn1.ObjectIdentifier{2, 5, 4, 3}, cbasn1.UTF8String},
	{"SN", asn1.ObjectIdentifier{2, 5, 4, 4}, cbasn1.UTF8String},
	{"GN", asn1.ObjectIdentifier{2, 5, 4, 42}, cbasn1.UTF8String},
	{"T", asn1.ObjectIdentifier{2, 5, 4, 12}, cbasn1.UTF8String},
	{"serialNumber", asn1.ObjectIdentifier{2, 5, 4, 5}, cbasn1.PrintableString},
	{"E", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, cbasn1.IA5String},
	{"emailAddress", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, cbasn1.IA5String},
	{"DC", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, cbasn1.IA5String},
	{"UID", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, cbasn1.UTF8String},
}

// textual tells whether the value is characters of which the tag is no part.
func (a attribute) textual() bool {
	switch a.tag {
	case cbasn1.UTF8String, cbasn1.PrintableString, cbasn1.IA5String:
		return utf8.Valid(a.value)
	}
	return false
}

func (a attribute) equal(b attribute) bool {
	return a.kind.Equal(b.kind) && same(a.value, b.value) && (a.tag == b.tag || a.textual() && b.textual())
}

// sameDN compares attributes, where the bytes are not the same already.
func sameDN(a, b []byte) bool {
	x, okx := readDN(a)
	y, oky := readDN(b)
	return okx && oky && slices.EqualFunc(x, y, func(p, q []attribute) bool { return slices.EqualFunc(p, q, attribute.equal) })
}

// readDN reads an RDNSequence in DER.
func readDN(der []byte) (names distinguished, ok bool) {
	input := cryptobyte.String(der)
	var sequence cryptobyte.String
	if !input.ReadASN1(&sequence, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, false
	}
	for !sequence.Empty() {
		var set cryptobyte.String
		if !sequence.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, false
		}
		var rdn []attribute
		for !set.Empty() {
			var pair, value cryptobyte.String
			var a attribute
			if !set.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&a.kind) ||
				!pair.ReadAnyASN1(&value, &a.tag) || !pair.Empty() {
				return nil, false
			}
			a.value = value
			rdn = append(rdn, a)
		}
		names = append(names, rdn)
	}
	return names, true
}

// bytes writes the RDNSequence in DER, which sorts the members of a set.
func (d distinguished) bytes() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range d {
			members := make([]string, 0, len(rdn))
			for _, a := range rdn {
				members = append(members, a.bytes(b))
			}
			slices.Sort(members)
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes([]byte(strings.Join(members, ""))) })
		}
	})
	return b.Bytes()
}

// bytes is the attribute in DER; what cannot be written makes an error of outer.
func (a attribute) bytes(outer *cryptobyte.Builder) string {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.kind)
		b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes(a.value) })
	})
	der, err := b.Bytes()
	if err != nil {
		outer.SetError(err)
	}
	return string(der)
}

// String writes the names as parseDN reads them, in the order of the certificate.
func (d distinguished) String() string {
	parts := make([]string, 0, len(d))
	for _, rdn := range d {
		values := make([]string, 0, len(rdn))
		for _, a := range rdn {
			values = append(values, a.name()+"="+a.text())
		}
		parts = append(parts, strings.Join(values, "+"))
	}
	return strings.Join(parts, ", ")
}

func (a attribute) name() string {
	for _, n := range attributeNames {
		if n.kind.Equal(a.kind) {
			return n.name
		}
	}
	return a.kind.String()
}

// text is the value, escaped as RFC 4514 2.4 says; "#" and the DER of the value in
// hexadecimal where it is no text.
func (a attribute) text() string {
	if !a.textual() || !printable(string(a.value)) {
		var b cryptobyte.Builder
		b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes(a.value) })
		der, err := b.Bytes()
		if err != nil {
			return "" // what was read is never too long to be written
		}
		return "#" + hex.EncodeToString(der)
	}
	var out strings.Builder
	for i, r := range string(a.value) {
		edge := i == 0 || i+utf8.RuneLen(r) == len(a.value)
		if strings.ContainsRune(`,+"\<>;=/`, r) || r == '#' && i == 0 || r == ' ' && edge {
			out.WriteByte('\\')
		}
		out.WriteRune(r)
	}
	return out.String()
}

// parseDN reads "C=CH, O=x, CN=y" or "/C=CH/O=x/CN=y" in the order of the
// certificate and returns DER. "+" joins attributes of one set; values may stand in
// double quotes; a backslash takes the meaning from a character; a value "#.." is
// DER in hexadecimal; a type may be an object identifier.
func parseDN(text string) ([]byte, error) {
	separators := ",;"
	if rest, ok := strings.CutPrefix(text, "/"); ok {
		text, separators = rest, "/"
	}
	var names distinguished
	joined := false
	for {
		part, end, rest, err := cutValue(text, separators+"+")
		if err != nil {
			return nil, err
		}
		a, err := parseAttribute(part)
		if err != nil {
			return nil, err
		}
		if joined {
			names[len(names)-1] = append(names[len(names)-1], a)
		} else {
			names = append(names, []attribute{a})
		}
		if end == 0 {
			return names.bytes()
		}
		joined, text = end == '+', rest
	}
}

// cutValue cuts behind the next separator that is neither quoted nor escaped.
func cutValue(text, separators string) (part string, end byte, rest string, err error) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(separators, c) >= 0:
			return text[:i], c, text[i+1:], nil
		}
	}
	if quoted {
		return "", 0, "", fmt.Errorf("a quotation mark is not closed")
	}
	return text, 0, "", nil
}

func parseAttribute(part string) (a attribute, err error) {
	name, value, ok := strings.Cut(part, "=")
	name = strings.TrimSpace(name)
	if !ok {
		return a, fmt.Errorf("%s lacks \"=\"; write \\ in front of a comma or plus that is part of a value", shown(part))
	}
	if a.kind, a.tag, err = attributeType(name); err != nil {
		return a, err
	}
	value = strings.TrimLeft(value, " ")
	if digits, ok := strings.CutPrefix(value, "#"); ok {
		return a.fromHex(strings.TrimRight(digits, " "))
	}
	a.value, err = unescape(value)
	if err == nil && len(a.value) == 0 {
		err = fmt.Errorf("%s= has no value", name)
	}
	if a.tag == cbasn1.PrintableString && !printableString(a.value) || a.tag == cbasn1.IA5String && !ascii(a.value) {
		a.tag = cbasn1.UTF8String
	}
	return a, err
}

func attributeType(name string) (asn1.ObjectIdentifier, cbasn1.Tag, error) {
	for _, n := range attributeNames {
		if strings.EqualFold(n.name, name) {
			return n.kind, n.tag, nil
		}
	}
	var kind asn1.ObjectIdentifier
	for number := range strings.SplitSeq(name, ".") {
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return nil, 0, fmt.Errorf("%s is no type of a name: C, ST, L, O, OU, CN, SN, GN, T, E, DC, UID, serialNumber, or an object identifier", shown(name))
		}
		kind = append(kind, int(n))
	}
	var b cryptobyte.Builder
	b.AddASN1ObjectIdentifier(kind)
	if _, err := b.Bytes(); err != nil {
		return nil, 0, fmt.Errorf("%s is no object identifier", shown(name))
	}
	return kind, cbasn1.UTF8String, nil
}

func (a attribute) fromHex(digits string) (attribute, error) {
	der, err := hex.DecodeString(digits)
	if err != nil {
		return a, fmt.Errorf("behind \"#\": %w", err)
	}
	input := cryptobyte.String(der)
	var value cryptobyte.String
	if !input.ReadAnyASN1(&value, &a.tag) || !input.Empty() {
		return a, fmt.Errorf("behind \"#\" there is no DER value")
	}
	a.value = value
	return a, nil
}

// unescape takes backslashes and quotation marks away, and spaces at the end that
// neither protects.
func unescape(text string) ([]byte, error) {
	var out []byte
	keep := 0 // length up to which spaces are meant
	quoted := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			quoted = !quoted
			keep = len(out)
			continue
		case c == '\\':
			if i++; i == len(text) {
				return nil, fmt.Errorf("nothing follows the backslash at the end")
			}
			c = text[i]
			keep = len(out) + 1
		case c != ' ' || quoted:
			keep = len(out) + 1
		}
		out = append(out, c)
	}
	out = out[:keep]
	if !printable(string(out)) {
		return nil, fmt.Errorf("a value has characters that cannot be printed")
	}
	return out, nil
}

// printableString: the characters of ASN.1's type of that name.
func printableString(b []byte) bool {
	return strings.Trim(string(b), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?") == ""
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
