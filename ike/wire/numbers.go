package wire

import "strconv"

// SPI is an IKE SPI, 8 bytes.
type SPI uint64

func (s SPI) String() string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i := range b {
		b[i] = digits[s>>(60-4*i)&15]
	}
	return string(b[:])
}

// Bytes is the SPI as it stands in messages, as in a proposal that rekeys an IKE SA.
func (s SPI) Bytes() []byte { return Header{Initiator: s}.append(nil)[:8] }

// PayloadType is the type of a payload (RFC 7296 3.2).
type PayloadType uint8

// The payload types. The critical bit of these says nothing (RFC 7296 2.5); every
// other type is an [Unknown] payload.
const (
	PayloadNone    PayloadType = 0
	PayloadSA      PayloadType = 33
	PayloadKE      PayloadType = 34
	PayloadIDi     PayloadType = 35
	PayloadIDr     PayloadType = 36
	PayloadCERT    PayloadType = 37
	PayloadCERTREQ PayloadType = 38
	PayloadAUTH    PayloadType = 39
	PayloadNonce   PayloadType = 40
	PayloadN       PayloadType = 41
	PayloadD       PayloadType = 42
	PayloadV       PayloadType = 43
	PayloadTSi     PayloadType = 44
	PayloadTSr     PayloadType = 45
	PayloadSK      PayloadType = 46
	PayloadCP      PayloadType = 47
	PayloadEAP     PayloadType = 48
	PayloadSKF     PayloadType = 53 // RFC 7383
)

var payloadNames = map[PayloadType]string{
	PayloadNone: "none", PayloadSA: "SA", PayloadKE: "KE", PayloadIDi: "IDi", PayloadIDr: "IDr", PayloadCERT: "CERT",
	PayloadCERTREQ: "CERTREQ", PayloadAUTH: "AUTH", PayloadNonce: "Nonce", PayloadN: "N", PayloadD: "D", PayloadV: "V",
	PayloadTSi: "TSi", PayloadTSr: "TSr", PayloadSK: "SK", PayloadCP: "CP", PayloadEAP: "EAP", PayloadSKF: "SKF",
}

func (t PayloadType) String() string { return name(payloadNames, t, "payload") }

// ExchangeType is the type of an exchange (RFC 7296 3.1).
type ExchangeType uint8

// The exchange types.
const (
	IKESAInit       ExchangeType = 34
	IKEAuth         ExchangeType = 35
	CreateChildSA   ExchangeType = 36
	Informational   ExchangeType = 37
	IKEIntermediate ExchangeType = 43 // RFC 9242
	IKEFollowupKE   ExchangeType = 44 // RFC 9370
)

var exchangeNames = map[ExchangeType]string{
	IKESAInit: "IKE_SA_INIT", IKEAuth: "IKE_AUTH", CreateChildSA: "CREATE_CHILD_SA",
	Informational: "INFORMATIONAL", IKEIntermediate: "IKE_INTERMEDIATE", IKEFollowupKE: "IKE_FOLLOWUP_KE",
}

func (t ExchangeType) String() string { return name(exchangeNames, t, "exchange") }

// Flags are those of the header (RFC 7296 3.1).
type Flags uint8

// The flags.
const (
	FlagInitiator Flags = 0x08 // from the original initiator of the IKE SA
	FlagVersion   Flags = 0x10 // the sender can speak a higher major version
	FlagResponse  Flags = 0x20 // answers the request of the same message ID
)

func (f Flags) String() string {
	letters := []byte("---")
	for i, flag := range []Flags{FlagInitiator, FlagVersion, FlagResponse} {
		if f&flag != 0 {
			letters[i] = "IVR"[i]
		}
	}
	return string(letters)
}

// ProtocolID is the protocol of an SA (RFC 7296 3.3.1).
type ProtocolID uint8

// The protocols.
const (
	ProtocolIKE ProtocolID = 1
	ProtocolAH  ProtocolID = 2
	ProtocolESP ProtocolID = 3
)

var protocolNames = map[ProtocolID]string{0: "none", ProtocolIKE: "IKE", ProtocolAH: "AH", ProtocolESP: "ESP"}

func (p ProtocolID) String() string { return name(protocolNames, p, "protocol") }

// SPILen is how long the protocol's SPIs are in bytes; 0: not known.
func (p ProtocolID) SPILen() int {
	switch p {
	case ProtocolIKE:
		return 8
	case ProtocolAH, ProtocolESP:
		return 4
	}
	return 0
}

// TransformType is what a transform is for (RFC 7296 3.3.2).
type TransformType uint8

// The transform types. ADDKE1 to ADDKE7 are of RFC 9370.
const (
	ENCR   TransformType = 1
	PRF    TransformType = 2
	INTEG  TransformType = 3
	KEX    TransformType = 4 // "KE", once Diffie-Hellman Group; [KE] is the payload
	ESN    TransformType = 5
	ADDKE1 TransformType = 6
	ADDKE2 TransformType = 7
	ADDKE3 TransformType = 8
	ADDKE4 TransformType = 9
	ADDKE5 TransformType = 10
	ADDKE6 TransformType = 11
	ADDKE7 TransformType = 12
)

var transformNames = map[TransformType]string{
	ENCR: "ENCR", PRF: "PRF", INTEG: "INTEG", KEX: "KE", ESN: "ESN", ADDKE1: "ADDKE1", ADDKE2: "ADDKE2",
	ADDKE3: "ADDKE3", ADDKE4: "ADDKE4", ADDKE5: "ADDKE5", ADDKE6: "ADDKE6", ADDKE7: "ADDKE7",
}

func (t TransformType) String() string { return name(transformNames, t, "transform") }

// IDType is the type of an identity (RFC 7296 3.5).
type IDType uint8

// The types of identities.
const (
	IDIPv4Addr   IDType = 1
	IDFQDN       IDType = 2
	IDRFC822Addr IDType = 3
	IDIPv6Addr   IDType = 5
	IDDERASN1DN  IDType = 9
	IDDERASN1GN  IDType = 10
	IDKeyID      IDType = 11
	IDNull       IDType = 13 // RFC 7619
)

var idNames = map[IDType]string{
	IDIPv4Addr: "ID_IPV4_ADDR", IDFQDN: "ID_FQDN", IDRFC822Addr: "ID_RFC822_ADDR", IDIPv6Addr: "ID_IPV6_ADDR",
	IDDERASN1DN: "ID_DER_ASN1_DN", IDDERASN1GN: "ID_DER_ASN1_GN", IDKeyID: "ID_KEY_ID", IDNull: "ID_NULL",
}

func (t IDType) String() string { return name(idNames, t, "identity") }

// AuthMethod is how an AUTH payload was made (RFC 7296 3.8).
type AuthMethod uint8

// The methods.
const (
	AuthRSA              AuthMethod = 1 // RSA Digital Signature
	AuthSharedKey        AuthMethod = 2 // Shared Key Message Integrity Code
	AuthDSS              AuthMethod = 3
	AuthECDSA256         AuthMethod = 9  // with SHA-256 on P-256 (RFC 4754)
	AuthECDSA384         AuthMethod = 10 // with SHA-384 on P-384
	AuthECDSA521         AuthMethod = 11 // with SHA-512 on P-521
	AuthNull             AuthMethod = 13 // RFC 7619
	AuthDigitalSignature AuthMethod = 14 // RFC 7427
)

var authNames = map[AuthMethod]string{
	AuthRSA: "RSA", AuthSharedKey: "shared key", AuthDSS: "DSS", AuthECDSA256: "ECDSA-256", AuthECDSA384: "ECDSA-384",
	AuthECDSA521: "ECDSA-521", AuthNull: "NULL", AuthDigitalSignature: "digital signature",
}

func (m AuthMethod) String() string { return name(authNames, m, "auth method") }

// CertEncoding is what a CERT or CERTREQ payload holds (RFC 7296 3.6).
type CertEncoding uint8

// The encodings.
const (
	CertPKCS7         CertEncoding = 1
	CertX509Signature CertEncoding = 4 // one certificate in DER
	CertCRL           CertEncoding = 7
	CertHashURL       CertEncoding = 12
	CertHashURLBundle CertEncoding = 13
	CertOCSPContent   CertEncoding = 14 // RFC 4806
	CertRawPublicKey  CertEncoding = 15 // SubjectPublicKeyInfo in DER (RFC 7670)
)

var certNames = map[CertEncoding]string{
	CertPKCS7: "PKCS #7", CertX509Signature: "X.509", CertCRL: "CRL", CertHashURL: "hash and URL",
	CertHashURLBundle: "hash and URL of a bundle", CertOCSPContent: "OCSP", CertRawPublicKey: "raw public key",
}

func (e CertEncoding) String() string { return name(certNames, e, "encoding") }

// CPType is what a Configuration payload wants (RFC 7296 3.15).
type CPType uint8

// The types.
const (
	CFGRequest CPType = 1
	CFGReply   CPType = 2
	CFGSet     CPType = 3
	CFGAck     CPType = 4
)

var cpNames = map[CPType]string{CFGRequest: "CFG_REQUEST", CFGReply: "CFG_REPLY", CFGSet: "CFG_SET", CFGAck: "CFG_ACK"}

func (t CPType) String() string { return name(cpNames, t, "CFG") }

// CPAttributeType is the type of a Configuration Attribute (RFC 7296 3.15.1).
type CPAttributeType uint16

// The types that have an address, a name server or a subnet.
const (
	CPInternalIP4Address  CPAttributeType = 1
	CPInternalIP4Netmask  CPAttributeType = 2
	CPInternalIP4DNS      CPAttributeType = 3
	CPApplicationVersion  CPAttributeType = 7
	CPInternalIP6Address  CPAttributeType = 8
	CPInternalIP6DNS      CPAttributeType = 10
	CPInternalIP4Subnet   CPAttributeType = 13
	CPSupportedAttributes CPAttributeType = 14
	CPInternalIP6Subnet   CPAttributeType = 15
)

func (t CPAttributeType) String() string { return name(nil, t, "attribute") }

// name is what names has for v, or what with its number.
func name[T ~uint8 | ~uint16](names map[T]string, v T, what string) string {
	if s, ok := names[v]; ok {
		return s
	}
	return what + " " + strconv.Itoa(int(v))
}
