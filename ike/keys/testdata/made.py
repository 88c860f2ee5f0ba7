#!/usr/bin/python3
"""Makes made.txt: keys and messages of IKEv2 for every suite, by Python's hmac and
the Python package "cryptography", which share no code with Go's.
Run: python3 made.py > made.txt

The formulas are written out from the RFCs here once more: RFC 7296 2.13 (prf+ as a
loop), 2.14, 2.17, 2.18, 3.14; RFC 5282, 5930, 7634, 7383, 8784, 9242, 9370.
"""
import hashlib
import hmac
import struct

import cryptography
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

HASHES = {"sha1": (20, 12), "sha256": (32, 16), "sha384": (48, 24), "sha512": (64, 32)}
PRFS = {"sha1": 2, "sha256": 5, "sha384": 6, "sha512": 7}
INTEGS = {"sha1": 2, "sha256": 12, "sha384": 13, "sha512": 14}


def count(start, n):
    return bytes((start + i) & 0xFF for i in range(n))


def prf(name, key, data):
    return hmac.new(key, data, getattr(hashlib, name)).digest()


def prf_plus(name, key, seed, n):
    out, t, i = b"", b"", 1
    while len(out) < n:
        t = prf(name, key, t + seed + bytes([i]))
        out += t
        i += 1
    return out[:n]


class Keys:
    """The seven keys, from SKEYSEED."""

    def __init__(self, name, suite, skeyseed, ni, nr, spis):
        self.prf, self.suite = name, suite
        p, e, a = HASHES[name][0], suite.enc_len, suite.integ_len
        self.all = prf_plus(name, skeyseed, ni + nr + spis, 3 * p + 2 * e + 2 * a)
        parts, at = [], 0
        for n in (p, a, a, e, e, p, p):
            parts.append(self.all[at:at + n])
            at += n
        self.d, self.ai, self.ar, self.ei, self.er, self.pi, self.pr = parts


class Suite:
    def __init__(self, name, encr, bits, integ=None):
        self.name, self.encr, self.bits, self.integ = name, encr, bits, integ
        key = bits // 8
        self.integ_len = HASHES[integ][0] if integ else 0
        self.key_len = key
        self.salt_len = {12: 0, 14: 3, 15: 3, 16: 3}.get(encr, 4)
        self.enc_len = key + self.salt_len
        self.block = 16 if encr == 12 else 1

    def icv_len(self):
        if self.integ:
            return HASHES[self.integ][1]
        return {14: 8, 15: 12, 16: 16, 18: 8, 19: 12, 20: 16, 28: 16}[self.encr]

    def iv_len(self):
        return 16 if self.encr == 12 else 8

    def sealed_len(self, inner):
        text = -(-(inner + 1) // self.block) * self.block
        return self.iv_len() + text + self.icv_len()

    def seal(self, enc, auth, aad, iv, inner):
        key, salt = enc[:self.key_len], enc[self.key_len:]
        pad = -(len(inner) + 1) % self.block
        text = inner + bytes(pad) + bytes([pad])
        icv = self.icv_len()
        if self.encr in (18, 19, 20):
            return aad + iv + AESGCM(key).encrypt(salt + iv, text, aad)[:len(text) + icv]
        if self.encr in (14, 15, 16):
            return aad + iv + AESCCM(key, tag_length=icv).encrypt(salt + iv, text, aad)
        if self.encr == 28:
            return aad + iv + ChaCha20Poly1305(key).encrypt(salt + iv, text, aad)
        mode = modes.CBC(iv) if self.encr == 12 else modes.CTR(salt + iv + b"\0\0\0\1")
        e = Cipher(algorithms.AES(key), mode).encryptor()
        body = aad + iv + e.update(text) + e.finalize()
        return body + prf(self.integ, auth, body)[:icv]


def suites():
    for bits in 128, 192, 256:
        for icv, gcm, ccm in (16, 20, 16), (12, 19, 15), (8, 18, 14):
            yield Suite(f"aes{bits}gcm{icv}", gcm, bits)
            yield Suite(f"aes{bits}ccm{icv}", ccm, bits)
        for name in HASHES:
            yield Suite(f"aes{bits}-{name}", 12, bits, name)
            yield Suite(f"aes{bits}ctr-{name}", 13, bits, name)
    yield Suite("chacha20poly1305", 28, 256)


def header(spis, payload, exchange, flags, message_id, length):
    return spis + struct.pack(">BBBBII", payload, 0x20, exchange, flags, message_id, length)


def message(suite, spis, enc, auth, iv, exchange, flags, message_id, first, inner, fragment=None):
    n = suite.sealed_len(len(inner))
    generic = struct.pack(">BBH", first, 0, 4 + n)
    payload = 46
    if fragment:
        payload = 53
        generic = struct.pack(">BBHHH", first, 0, 8 + n, *fragment)
    aad = header(spis, payload, exchange, flags, message_id, 28 + len(generic) + n) + generic
    return suite.seal(enc, auth, aad, iv, inner)


def covered(spis, exchange, flags, message_id, first, inner):
    """What IntAuth covers: RFC 9242 3.3.2, IntAuth_xA | IntAuth_xP."""
    a = header(spis, 46, exchange, flags, message_id, 28 + 4 + len(inner))
    return a + struct.pack(">BBH", first, 0, 4 + len(inner)) + inner


def show(**values):
    for key, value in values.items():
        print(f"{key.replace('_', '-')} = {value.hex() if isinstance(value, bytes) else value}")


print("# Made by made.py.")
print(f"source = Python cryptography {cryptography.__version__}, by made.py")
for number, suite in enumerate(suites()):
    name = list(PRFS)[number % 4]
    nonce_len = (32, 64, 256, 32)[number // 4 % 4]
    ni, nr, shared = count(number, nonce_len), count(number + 77, 32), count(3 * number, 32 + number)
    spis = count(0xC0 + number, 8) + count(0x10 + number, 8)
    sk = Keys(name, suite, prf(name, ni + nr, shared), ni, nr, spis)
    print()
    show(name=suite.name, prf=PRFS[name], encr=suite.encr, bits=suite.bits,
         integ=INTEGS[suite.integ] if suite.integ else 0, ni=ni, nr=nr, shared=shared, spis=spis, keys=sk.all)

    # RFC 9370 2.2.2
    extra = count(0x33 + number, 32)
    mixed = Keys(name, suite, prf(name, sk.d, extra + ni + nr), ni, nr, spis)
    show(mix=extra, mixed=mixed.all)

    # RFC 7296 2.18 and RFC 9370 2.2.4: the old PRF for SKEYSEED, a new one for the rest.
    new = list(PRFS)[(number + 1) % 4]
    ni2, nr2, spis2, g, more = count(9 + number, 32), count(8, 40), count(0x55, 16), count(0x21, 48), count(0x99, 32)
    again = Keys(new, suite, prf(name, sk.d, g + ni2 + nr2), ni2, nr2, spis2)
    twice = Keys(new, suite, prf(name, sk.d, g + ni2 + nr2 + more + extra), ni2, nr2, spis2)
    show(rekey_prf=PRFS[new], rekey_ni=ni2, rekey_nr=nr2, rekey_spis=spis2, rekey_shared=g, rekey_more=more,
         rekeyed=again.all, rekeyed_more=twice.all)

    # RFC 8784 3
    ppk, p = count(0x70 + number, 32), HASHES[name][0]
    show(ppk=ppk, ppk_d=prf_plus(name, ppk, sk.d, p), ppk_pi=prf_plus(name, ppk, sk.pi, p),
         ppk_pr=prf_plus(name, ppk, sk.pr, p))

    # RFC 7296 2.17 and RFC 9370 2.2.4: first initiator's encryption and integrity key.
    n = 2 * (36 + 32)
    show(child=prf_plus(name, sk.d, ni2 + nr2, n), child_ke=prf_plus(name, sk.d, g + ni2 + nr2, n),
         child_more=prf_plus(name, sk.d, g + ni2 + nr2 + more + extra, n))

    # RFC 9242 3.3.2: two messages of either end, the second by mixed keys.
    inner = count(5, 40 + number)
    i1 = prf(name, sk.pi, covered(spis, 43, 0x08, 1, 34, inner))
    r1 = prf(name, sk.pr, covered(spis, 43, 0x20, 1, 34, inner[:3]))
    i2 = prf(name, mixed.pi, i1 + covered(spis, 43, 0x08, 2, 34, b""))
    r2 = prf(name, mixed.pr, r1 + covered(spis, 43, 0x20, 2, 34, inner))
    show(inner=inner, intauth=i2 + r2 + struct.pack(">I", 3))

    # Messages: the request is the first that the initiator seals, the answer, in two
    # fragments, the first and second of the responder.
    random = count(0xE0 + number, 16)
    iv = [random] * 2 if suite.encr == 12 else [struct.pack(">Q", i) for i in range(2)]
    show(random=random, request=message(suite, spis, sk.ei, sk.ai, iv[0], 35, 0x08, 1, 35, inner),
         fragment1=message(suite, spis, sk.er, sk.ar, iv[0], 35, 0x20, 1, 36, inner, (1, 2)),
         fragment2=message(suite, spis, sk.er, sk.ar, iv[1], 35, 0x20, 1, 0, b"", (2, 2)))
