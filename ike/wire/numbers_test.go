package wire_test

import (
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestNumbersOfIANA writes the numbers of the registry "Internet Key Exchange
// Version 2 (IKEv2) Parameters" down once more, by the names it has for them.
func TestNumbersOfIANA(t *testing.T) {
	for name, number := range map[string]uint16{
		"UNSUPPORTED_CRITICAL_PAYLOAD": 1, "INVALID_IKE_SPI": 4, "INVALID_MAJOR_VERSION": 5, "INVALID_SYNTAX": 7,
		"INVALID_MESSAGE_ID": 9, "INVALID_SPI": 11, "NO_PROPOSAL_CHOSEN": 14, "INVALID_KE_PAYLOAD": 17,
		"AUTHENTICATION_FAILED": 24, "SINGLE_PAIR_REQUIRED": 34, "NO_ADDITIONAL_SAS": 35, "INTERNAL_ADDRESS_FAILURE": 36,
		"FAILED_CP_REQUIRED": 37, "TS_UNACCEPTABLE": 38, "INVALID_SELECTORS": 39, "UNACCEPTABLE_ADDRESSES": 40,
		"UNEXPECTED_NAT_DETECTED": 41, "TEMPORARY_FAILURE": 43, "CHILD_SA_NOT_FOUND": 44, "STATE_NOT_FOUND": 47, "TS_MAX_QUEUE": 48,
		"INITIAL_CONTACT": 16384, "SET_WINDOW_SIZE": 16385, "ADDITIONAL_TS_POSSIBLE": 16386, "IPCOMP_SUPPORTED": 16387,
		"NAT_DETECTION_SOURCE_IP": 16388, "NAT_DETECTION_DESTINATION_IP": 16389, "COOKIE": 16390, "USE_TRANSPORT_MODE": 16391,
		"HTTP_CERT_LOOKUP_SUPPORTED": 16392, "REKEY_SA": 16393, "ESP_TFC_PADDING_NOT_SUPPORTED": 16394, "NON_FIRST_FRAGMENTS_ALSO": 16395,
		"MOBIKE_SUPPORTED": 16396, "ADDITIONAL_IP4_ADDRESS": 16397, "ADDITIONAL_IP6_ADDRESS": 16398, "NO_ADDITIONAL_ADDRESSES": 16399,
		"UPDATE_SA_ADDRESSES": 16400, "COOKIE2": 16401, "NO_NATS_ALLOWED": 16402, "AUTH_LIFETIME": 16403, "REDIRECT_SUPPORTED": 16406,
		"REDIRECT": 16407, "REDIRECTED_FROM": 16408, "EAP_ONLY_AUTHENTICATION": 16417, "CHILDLESS_IKEV2_SUPPORTED": 16418,
		"QUICK_CRASH_DETECTION": 16419, "IKEV2_FRAGMENTATION_SUPPORTED": 16430, "SIGNATURE_HASH_ALGORITHMS": 16431, "USE_PPK": 16435,
		"PPK_IDENTITY": 16436, "NO_PPK_AUTH": 16437, "INTERMEDIATE_EXCHANGE_SUPPORTED": 16438, "ADDITIONAL_KEY_EXCHANGE": 16441, "SA_RESOURCE_INFO": 16444,
	} {
		if got := wire.NotifyType(number).String(); got != name {
			t.Errorf("notification %d is called %s, want %s", number, got, name)
		}
		if got, want := wire.NotifyType(number).IsError(), number < 16384; got != want {
			t.Errorf("%s is an error: %t, want %t", name, got, want)
		}
	}
	for number, name := range map[int]string{33: "SA", 34: "KE", 35: "IDi", 36: "IDr", 37: "CERT", 38: "CERTREQ", 39: "AUTH", 40: "Nonce", 41: "N", 42: "D", 43: "V",
		44: "TSi", 45: "TSr", 46: "SK", 47: "CP", 48: "EAP", 53: "SKF", 0: "none", 49: "payload 49"} {
		if got := wire.PayloadType(number).String(); got != name {
			t.Errorf("payload %d is called %s, want %s", number, got, name)
		}
	}
	for number, name := range map[int]string{34: "IKE_SA_INIT", 35: "IKE_AUTH", 36: "CREATE_CHILD_SA", 37: "INFORMATIONAL", 43: "IKE_INTERMEDIATE", 44: "IKE_FOLLOWUP_KE", 38: "exchange 38"} {
		if got := wire.ExchangeType(number).String(); got != name {
			t.Errorf("exchange %d is called %s, want %s", number, got, name)
		}
	}
	for _, c := range []struct{ got, want string }{
		{wire.TransformType(1).String(), "ENCR"}, {wire.TransformType(2).String(), "PRF"}, {wire.TransformType(3).String(), "INTEG"},
		{wire.TransformType(4).String(), "KE"}, {wire.TransformType(5).String(), "ESN"}, {wire.TransformType(6).String(), "ADDKE1"},
		{wire.TransformType(12).String(), "ADDKE7"}, {wire.TransformType(13).String(), "transform 13"},
		{wire.ProtocolID(1).String(), "IKE"}, {wire.ProtocolID(2).String(), "AH"}, {wire.ProtocolID(3).String(), "ESP"}, {wire.ProtocolID(4).String(), "protocol 4"},
		{wire.IDType(1).String(), "ID_IPV4_ADDR"}, {wire.IDType(2).String(), "ID_FQDN"}, {wire.IDType(3).String(), "ID_RFC822_ADDR"},
		{wire.IDType(5).String(), "ID_IPV6_ADDR"}, {wire.IDType(9).String(), "ID_DER_ASN1_DN"}, {wire.IDType(11).String(), "ID_KEY_ID"}, {wire.IDType(13).String(), "ID_NULL"},
		{wire.AuthMethod(1).String(), "RSA"}, {wire.AuthMethod(2).String(), "shared key"}, {wire.AuthMethod(9).String(), "ECDSA-256"},
		{wire.AuthMethod(10).String(), "ECDSA-384"}, {wire.AuthMethod(11).String(), "ECDSA-521"}, {wire.AuthMethod(13).String(), "NULL"}, {wire.AuthMethod(14).String(), "digital signature"},
		{wire.CertEncoding(4).String(), "X.509"}, {wire.CertEncoding(7).String(), "CRL"}, {wire.CertEncoding(14).String(), "OCSP"}, {wire.CertEncoding(15).String(), "raw public key"},
		{wire.CPType(1).String(), "CFG_REQUEST"}, {wire.CPType(4).String(), "CFG_ACK"}, {wire.CPAttributeType(7).String(), "attribute 7"},
		{wire.SPI(0x0123456789abcdef).String(), "0123456789abcdef"}, {wire.Flags(0x28).String(), "I-R"}, {wire.Flags(0x10).String(), "-V-"},
		{wire.NotifyType(16434).String(), "notification 16434"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	if got := wire.SPI(0x0123456789abcdef).Bytes(); len(got) != 8 || got[0] != 1 || got[7] != 0xef {
		t.Errorf("bytes of an SPI %x", got)
	}
}
