package auth

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// minPSKBits is the strength that a pre-shared key must have. One exchange with an
// active attacker gives it all that it needs to try keys offline (RFC 7296 2.15:
// "deriving the shared secret from a password is not secure").
const minPSKBits = 128

// CheckPSK refuses a pre-shared key that could be guessed: one whose estimated
// entropy is below 128 bits. The estimate errs towards refusing: repeats, sequences
// and words count little. The error is an *Error and does not hold the key.
func CheckPSK(secret []byte) error {
	if bits := pskBits(secret); bits < minPSKBits {
		text := "the pre-shared key is too easy to guess"
		if len(secret) == 0 {
			text = "the pre-shared key is empty"
		}
		return &Error{Reason: WeakKey, Text: text, Ours: bitsText(bits), Fix: "make one with `openssl rand -base64 32`"}
	}
	return nil
}

// pskBits estimates the entropy.
func pskBits(secret []byte) float64 {
	each := math.Log2(alphabet(secret))
	hex := each == 4
	bits := 0.0
	if phrase(string(secret)) {
		each, hex = wordBits, false
	}
	for i := 0; i < len(secret); {
		if n := repeated(secret, i); n > 0 {
			bits, i = bits+repeatBits, i+n
			continue
		}
		if n := word(secret[i:]); n > 0 && !hex {
			bits, i = bits+wordBits*float64(n), i+n
			continue
		}
		if i > 0 && next(secret[i-1], secret[i]) {
			bits++
		} else {
			bits += each
		}
		i++
	}
	return bits
}

func bitsText(bits float64) string {
	return fmt.Sprintf("about %d bits, and %d are needed", int(bits), minPSKBits)
}

// What a repeat counts, whatever its length, and a letter of a word.
const (
	repeatBits = 8
	wordBits   = 2
)

// alphabet is how many characters the secret seems to be drawn from.
func alphabet(secret []byte) float64 {
	if !utf8.Valid(secret) || strings.ContainsFunc(string(secret), unicode.IsControl) {
		return 256 // bytes, not text
	}
	var lower, upper, digit, hexadecimal, base64, symbol, other bool
	hexadecimal, base64 = true, true
	for _, r := range string(secret) {
		switch {
		case 'a' <= r && r <= 'z':
			lower = true
		case 'A' <= r && r <= 'Z':
			upper = true
		case '0' <= r && r <= '9':
			digit = true
		case r < utf8.RuneSelf:
			symbol = true
		default:
			other = true
		}
		hexadecimal = hexadecimal && strings.ContainsRune("0123456789abcdefABCDEF", r)
		base64 = base64 && (r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("+/-_=", r))
	}
	switch {
	case hexadecimal && digit && (lower || upper) && !(lower && upper):
		return 16
	case base64 && lower && upper:
		return 64
	}
	size := 0.0
	for _, class := range []struct {
		is   bool
		size float64
	}{{lower, 26}, {upper, 26}, {digit, 10}, {symbol, 32}, {other, 64}} {
		if class.is {
			size += class.size
		}
	}
	return max(size, 1)
}

// minRepeat is how long a repeat must be to count as one: random keys have none.
const minRepeat = 6

// repeated is how many bytes from i on were there before, beginning earlier than
// i, which they may run into: "abababab" is "ab" and a repeat.
func repeated(secret []byte, i int) (longest int) {
	for j := range i {
		n := 0
		for i+n < len(secret) && lowered(secret[j+n]) == lowered(secret[i+n]) {
			n++
		}
		longest = max(longest, n)
	}
	if longest < minRepeat {
		return 0
	}
	return longest
}

func lowered(c byte) byte {
	if capital(c) {
		return c | 0x20
	}
	return c
}

// next: c follows b on a keyboard's or an alphabet's way, or is the same again.
func next(b, c byte) bool {
	if d := int(b) - int(c); -1 <= d && d <= 1 {
		return true
	}
	for _, row := range []string{"qwertzuiop", "qwertyuiop", "asdfghjkl", "yxcvbnm", "zxcvbnm", "azertyuiop"} {
		if i := strings.IndexByte(row, lowered(b)); i >= 0 && i+1 < len(row) && row[i+1] == lowered(c) {
			return true
		}
	}
	return false
}

// leet are letters that people write as something else.
var leet = map[byte]byte{'0': 'o', '1': 'i', '3': 'e', '4': 'a', '5': 's', '7': 't', '@': 'a', '$': 's', '!': 'i'}

// pairs are the pairs of letters that make up most of English and German text;
// random letters are in them once in six times.
const pairs = " th he in er an re nd at on nt ha es st en ed to it ou ea hi is or ti as te et ng of al de se le sa si ar ve ra ld ur" +
	" ch ie ei un ge be ic ne di il io me co ro li ri om ce ma us ho wi ss la el so we pa sw wo rd ey ke ec cr ta tr no ac lo am wa ad ry ir po "

// phrase: words with something between, whatever the words are.
func phrase(text string) bool {
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" -_.,:", r) })
	for _, w := range words {
		small := strings.TrimLeftFunc(w[1:], func(r rune) bool { return unicode.IsLower(r) || r == '!' }) == ""
		if !small && strings.ToUpper(w) != w || strings.ContainsFunc(w, func(r rune) bool { return !unicode.IsLetter(r) && r != '!' }) {
			return false
		}
	}
	return len(words) >= 4
}

// The lengths within which letters are taken for a word; longer runs are several.
const (
	minWord = 3
	maxWord = 12
)

// word is how many bytes at the start look like a word: letters, or what people
// write for letters, all small, all capital or with one capital in front, of which
// half the pairs are common ones, of short words two in three.
func word(text []byte) int {
	n, common := 0, 0
	var before byte
	for ; n < min(len(text), maxWord); n++ {
		c := lowered(text[n])
		if l, ok := leet[c]; ok {
			c = l
		}
		if c < 'a' || c > 'z' || n > 0 && !continues(text[:n], text[n]) {
			break
		}
		if n > 0 && strings.Contains(pairs, " "+string([]byte{before, c})+" ") {
			common++
		}
		before = c
	}
	if n < minWord || n < 5 && 3*common < 2*(n-1) || 2*common < n-1 {
		return 0
	}
	return n
}

// continues: the case of c is that of the word so far.
func continues(word []byte, c byte) bool {
	before := word[len(word)-1]
	switch {
	case !capital(before) && capital(c):
		return false
	case capital(before) && 'a' <= c && c <= 'z':
		return len(word) == 1
	}
	return true
}

func capital(c byte) bool { return 'A' <= c && c <= 'Z' }
