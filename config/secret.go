package config

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// secretKeys are the keys whose value is a secret.
var secretKeys = map[string]bool{"encryption_key": true, "integrity_key": true, "psk": true}

// secretive tells whether text may hold key material, so that an operator's
// slip (a key under the wrong name, a key in a comment) is not printed: a long
// run of hex digits, or a word made of little else. It errs towards yes.
func secretive(text string) bool {
	run := 0
	for _, r := range text {
		if isHex(r) {
			run++
		} else {
			run = 0
		}
		if run >= 16 {
			return true
		}
	}
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`"',;{}[]=`, r) }) {
		hex, alphanumeric := 0, 0
		for _, r := range word {
			if isHex(r) {
				hex++
			}
			if unicode.IsLetter(r) || unicode.IsDigit(r) {
				alphanumeric++
			}
		}
		if hex >= 24 && hex*5 >= alphanumeric*4 {
			return true
		}
	}
	for key := range secretKeys {
		if strings.Contains(strings.ReplaceAll(text, key+"_file", ""), key) {
			return true
		}
	}
	return false
}

func isHex(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F'
}

// showable tells whether text may stand in an error message.
func showable(text string) bool {
	if utf8.RuneCountInString(text) > 64 || secretive(text) {
		return false
	}
	return strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
